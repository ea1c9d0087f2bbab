"""The annotations by which korch's parts tell each other things: one place for their names."""

AUTO_ROLLBACK = "korch.dev/auto-rollback"  # on a deployment, "true": a revision that fails goes back as a whole
FAILED_REVISION = "korch.dev/failed-revision"  # on a deployment: template hash of a revision that is not tried again
REVISION = "deployment.kubernetes.io/revision"  # on a set: its number
COMPLETED = "korch.dev/completed"  # on a set, "true": this revision once ran in full
WANTED = "deployment.kubernetes.io/desired-replicas"  # on a set: the wish when it last ran in full
STOP_FIRST = "korch.dev/fits-without"  # on a pending pod: the old pod whose removal makes it fit
EVICT = "korch.dev/evict"  # on a pod that is to leave its node: "start-first" or "stop-first"
EVICT_WHY = "korch.dev/evict-why"  # beside it: which command wants that
REPLACES = "korch.dev/replaces"  # on a pod: uid of the one that leaves once this one is available
MOVED_FROM = "korch.dev/moved-from"  # beside it: the node that it does not go to
DECISION = "korch.dev/decision"  # on a pod: why it was placed where it is, or nowhere, for `korch why`
NODE_LOST = "korch.dev/lost"  # on a node: somebody said that it is gone for good, its data too
LOSSES = "korch.dev/losses"  # on a node: when it was lost lately, JSON of Unix seconds
MASS_LOSS = "korch.dev/mass-loss"  # on a node: it fell silent together with most others; nothing there is moved
FENCED = "korch.dev/fenced"  # on a lost node: the fencing hook made sure that it is off
GONE = frozenset({NODE_LOST, FENCED})  # either of them: the data there counts no more
