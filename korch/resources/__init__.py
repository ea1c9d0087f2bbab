"""Pure: the Kubernetes-shaped objects that korch honours."""
