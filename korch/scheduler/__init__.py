"""Pure: which node suits a pod best, and why."""
