"""What a keeper remembers of a pod's containers between looks; losing it costs a look, nothing else. No I/O."""

import asyncio
from dataclasses import dataclass, field

from korch.engines.observed import ObservedContainer
from korch.errors import TransientError
from korch.nodes.plan import restart_delay_s
from korch.nodes.podstatus import was_ready, was_started
from korch.nodes.probing import Health, ProbeKind, health_of, phase_of
from korch.resources.pod import Container, Pod
from korch.workqueue import retry_after_s

LOOP_WINDOW_S = 300.0  # so many restarts by the engine within it are fine:
LOOP_RESTARTS = 3
LOOP_FRESH_S = 10.0  # a run that has lasted so long is not ended for those before it
RETRY_INVALID_S = 5.0  # a Secret that is missing may come
FORGIVEN_AFTER_S = 600.0  # of running: restarts begin at once again, as in Kubernetes
Run = tuple[str, float | None]  # of a container: its id and when it was started


@dataclass(slots=True)
class Memory:
    """One container's checks, restarts and failed acts. Times are those of the caller's clocks."""

    health: Health | None = None  # of `about`; None while it does not run
    about: Run | None = None  # the very run that the checks were of
    checking: "dict[tuple[ProbeKind, ...], asyncio.Task[None]]" = field(default_factory=dict)
    checking_run: Run | None = None
    restarts: int = 0  # by the keeper in a row, none of which lasted
    began: float = float("-inf")  # the last of them
    ended: tuple[Run | None, float] | None = None  # the run that ended, and when that was noticed
    tried: Run | None = None  # the run that the last restart was to follow
    counted: tuple[str, int] | None = None  # the engine's own restarts: of which container, how many so far
    by_engine: list[float] = field(default_factory=list)  # when the last of those were noticed
    backing_off: bool = False  # its container has ended, and is started again later
    tries: int = 0  # failed acts in a row
    removing: bool = False  # they were tries to remove the pod
    placed: tuple[tuple[str, str, str], ...] | None = None  # versions of what its files were made from
    problem: str = ""  # what went wrong the last time
    not_before: float = 0.0  # on the event loop's clock: when the next act is due
    offline: bool = False  # the last act failed because the node could not be reached
    image: str = ""  # that its acts were for

    def observe(self, pod: Pod, container: Container, seen: ObservedContainer, now: float) -> None:
        """Begin anew when it is another run of the container. The first one met goes on as it stands on record."""
        run, met = (seen.id, seen.started_at), self.about is None
        if seen.state != "running":
            self.health, self.about = None, run
        elif self.health is None or self.about != run:
            self.health = health_of(
                container,
                now,
                running_s=seen.running_s or 0.0,
                phase=phase_of(pod.metadata.uid),
                was_started=met and was_started(pod, container.name, seen),
                was_ready=met and was_ready(pod, container.name, seen),
            )
            self.about = run

    def is_about(self, seen: ObservedContainer | None) -> bool:
        """Whether what is known of its checks is known of this run of the container."""
        return seen is not None and self.health is not None and self.about == (seen.id, seen.started_at)

    def unready(self) -> None:
        """Nothing is known of its readiness."""
        self.health, self.about = None, self.about or ("", None)

    def stop_checks(self) -> None:
        """No check runs any more."""
        for task in self.checking.values():
            task.cancel()
        self.checking.clear()

    def wait_s(self, now: float, *, removing: bool) -> float:
        """Seconds until an act may be tried again; a pod that is to go need not wait for what its start waits for."""
        return self.not_before - now if removing == self.removing else 0.0

    def failed(self, error: Exception, now: float, *, removing: bool) -> None:
        """An act failed: the next one of its kind waits, whoever asks for it."""
        self.tries = self.tries + 1 if removing == self.removing else 1
        self.removing = removing
        self.problem = str(error)
        after_s = retry_after_s(error, self.tries)
        self.not_before = now + (RETRY_INVALID_S if after_s is None else after_s)
        self.offline = isinstance(error, TransientError)

    def succeeded(self) -> None:
        """An act was carried out."""
        self.tries, self.problem, self.not_before, self.offline = 0, "", 0.0, False

    def wants(self, image: str) -> None:
        """Its container is to have this image: what failed for another one need not wait."""
        if self.image not in {"", image}:
            self.succeeded()
        self.image = image

    def begin_anew(self) -> None:
        """Another container takes its place: how often the one before ended says nothing of it."""
        self.restarts, self.began, self.ended, self.tried, self.counted = 0, float("-inf"), None, None, None
        self.by_engine.clear()
        self.unready()

    def online(self) -> None:
        """The node answers again: what failed for want of it need not wait."""
        if self.offline:
            self.succeeded()

    def too_early_s(self, run: Run | None, now: float) -> float:
        """Seconds until a container whose `run` has ended may be started again; none left counts as one more restart.

        A start that failed and is tried again follows the same run, and is no other restart: failed acts wait by
        themselves.
        """
        if run is not None and run == self.tried:
            return 0.0
        if self.ended is None or self.ended[0] != run:
            self.ended = run, now
            if now - self.began >= FORGIVEN_AFTER_S:
                self.restarts = 0
        wait_s = self.ended[1] + restart_delay_s(self.restarts) - now
        if wait_s > 0:
            return wait_s
        self.restarts, self.began, self.tried, self.ended = self.restarts + 1, now, run, None
        return 0.0

    def is_looping(self, seen: ObservedContainer, now: float) -> bool:
        """Whether its engine starts the container again too often, the last time just now.

        Once the keeper had to take over, one restart by the engine is too often, until a run has lasted.
        """
        before, self.counted = self.counted, (seen.id, seen.restart_count)
        if before is not None and before[0] == seen.id and seen.restart_count > before[1]:
            self.by_engine += [now] * (seen.restart_count - before[1])
        self.by_engine = [then for then in self.by_engine if now - then < LOOP_WINDOW_S][-LOOP_RESTARTS - 1 :]
        taken_over = self.restarts >= LOOP_RESTARTS and now - self.began < FORGIVEN_AFTER_S
        allowed = 0 if taken_over else LOOP_RESTARTS
        return len(self.by_engine) > allowed and now - self.by_engine[-1] < LOOP_FRESH_S

    def take_over(self, now: float) -> float:
        """The keeper has ended it instead of the engine's next start; seconds until it is started again."""
        self.restarts = LOOP_RESTARTS if now - self.began >= FORGIVEN_AFTER_S else max(self.restarts, LOOP_RESTARTS)
        self.began, self.backing_off = now, True
        self.by_engine.clear()
        return restart_delay_s(self.restarts)
