"""One reconciler a kind: pure plans, thin executors, a shared queue."""
