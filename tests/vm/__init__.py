"""korch in real virtual machines: systemd, control groups version 2, kernel and engines as users have them."""
