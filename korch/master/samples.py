"""A node's load as its session tells of it: all of it into the history, into the store what would change a score."""

import logging

from korch.errors import FencedError, KorchError
from korch.master.fleet import Fleet
from korch.nodes.news import Sample
from korch.nodes.register import load_of_sample
from korch.objects.values import Clock
from korch.objects.view import View
from korch.resources.node import NodeLoad
from korch.resources.times import parse_time

log = logging.getLogger(__name__)

STORE_SAMPLE_S = 10.0  # at most so often, and only when a score would change
STALE_SAMPLE_S = 60.0  # a sample this old is no longer trusted by the scheduler's freshness: written whatever it says
SCORE_STEP = 0.03  # of CPU or memory: less would not change a placement


class Samples:
    """The samples of one node."""

    def __init__(self, node: str, fleet: Fleet, view: View, clock: Clock) -> None:
        self._node, self._fleet, self._view, self._clock = node, fleet, view, clock
        self._newest: NodeLoad | None = None  # stored or not

    async def note(self, sample: Sample) -> None:
        """Take one in; what cannot be recorded is only logged."""
        stored = self._view.find(NodeLoad, self._node, "")
        if stored is None:
            return
        self._newest = load_of_sample(self._node, sample, self._newest or stored, self._clock.now())
        try:
            changed = changes_score(stored, self._newest)
            await self._fleet.record_sample(self._node, self._newest, score_changes=changed)
        except FencedError:
            raise
        except KorchError as error:
            log.info("%s: its load was not recorded: %s", self._node, error)


def changes_score(old: NodeLoad, new: NodeLoad) -> bool:
    """Whether a new sample is worth a write. Pure."""
    age_s = parse_time(new.sampled_at or "") - parse_time(old.sampled_at) if old.sampled_at else STALE_SAMPLE_S
    if not 0 <= age_s < STALE_SAMPLE_S or old.memory_total_bytes != new.memory_total_bytes:
        return True  # also when the clock was set back: the old one would look fresh for long
    if age_s < STORE_SAMPLE_S:
        return False
    total = max(1, new.memory_total_bytes)
    memory = abs(new.memory_available_bytes - old.memory_available_bytes) / total
    busy = abs((new.cpu_busy_smoothed or 0.0) - (old.cpu_busy_smoothed or 0.0))
    pressure = abs((new.pressure_cpu or 0.0) - (old.pressure_cpu or 0.0))
    return max(memory, busy, pressure) >= SCORE_STEP
