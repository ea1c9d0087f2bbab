"""The REST API: Kubernetes on the wire, korch's objects behind it."""
