"""korch beside its peers, and its own figures."""
