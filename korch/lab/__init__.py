"""A lab of real SSH hosts in network namespaces of this machine, with faults to order."""
