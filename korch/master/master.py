"""`korch master`: keeps what was declared true for as long as it runs. Of several on one state, one leads.

A master that does not lead waits; it holds no connection to any node. One that loses the lead (another has taken over,
the disk refuses to renew it) drops everything it knows, and waits again, also for the disk.
"""

import asyncio
import logging
import os
import socket
from contextlib import AbstractAsyncContextManager, AsyncExitStack, nullcontext

from korch.errors import FencedError, KorchError, TransientError
from korch.master.cluster import Cluster, seal_secrets
from korch.master.fencing import FencingHook
from korch.master.handover import STEP_ASIDE_S
from korch.master.metrics import Figures, serve_metrics
from korch.master.notify import notify
from korch.master.presence import Presence
from korch.master.sources import Sources
from korch.master.term import Term
from korch.store.failures import may_pass
from korch.store.lease import Lead

log = logging.getLogger(__name__)

STANDBY_POLL_S = 0.5
AFTER_TROUBLE_S = 2.0
FIRST_PAUSE_S = 1.0  # after a store that refused; twice as long after each further refusal
LONGEST_PAUSE_S = 15.0


async def serve(
    cluster: Cluster,
    stop: asyncio.Event,
    *,
    fence_command: str = "",
    metrics_port: int = 0,
    beside: AbstractAsyncContextManager[object] | None = None,
) -> None:
    """Lead, or wait for the lead, until `stop` is set. The lead is given back at the end.

    `metrics_port` on 127.0.0.1 tells Prometheus how things are; 0: none. `beside` is entered while this serves.
    """
    hook = FencingHook(fence_command) if fence_command else None
    cluster.hosts()  # a master without an inventory is refused before it leads
    lead = Lead(
        cluster.store,
        lock_file=cluster.settings.cluster_dir / "lead.lock",
        note={"doing": "master", "host": socket.gethostname(), "pid": str(os.getpid())},
    )
    if sealed := await seal_secrets(cluster):
        log.info("%d Secrets were sealed with the newest key", sealed)
    sources, figures = Sources(cluster), Figures()
    server = await serve_metrics(figures, "127.0.0.1", metrics_port) if metrics_port else None
    stack = AsyncExitStack()
    presence = Presence(cluster.store, lead.identity, cluster.clock)
    showing = asyncio.create_task(presence.run(), name="presence")
    standby = _Standby(lead)
    try:
        await stack.enter_async_context(beside or nullcontext())
        notify("READY=1")
        while not stop.is_set():
            leads = await standby.leads(stop)
            presence.show(leads=leads)
            if not leads:
                continue
            log.info("leading cluster %s, epoch %d", cluster.record.name, lead.epoch)
            notify("STATUS=leading")
            await _lead(sources, lead, hook, figures, stop)
            await _pause(stop, STEP_ASIDE_S)
    finally:
        notify("STOPPING=1")
        showing.cancel()
        await asyncio.gather(showing, return_exceptions=True)
        if server is not None:
            server.close()
        await stack.aclose()
    log.info("stopped; the containers go on running")


async def _lead(sources: Sources, lead: Lead, hook: FencingHook | None, figures: Figures, stop: asyncio.Event) -> None:
    """One term, until the lead is lost or `stop` is set; it is given back. Trouble is logged, and waited for."""
    try:
        await sources.look(at_once=True)  # it may have waited for long
        term = Term(sources, lead, hook=hook)
        figures.lead(term.view)
        await term.run(stop)
    except FencedError as error:
        log.warning("%s", error)
    except KorchError as error:
        log.error("%s; trying again", error)
        await _pause(stop, AFTER_TROUBLE_S)
    except Exception:
        log.exception("leading failed; this is a bug in korch; trying again")
        await _pause(stop, AFTER_TROUBLE_S)
    finally:
        figures.lead(None)
        await lead.release()


class _Standby:
    """Waits for the lead. What the store refuses for now (a full disk, a lock) is waited for, too."""

    def __init__(self, lead: Lead) -> None:
        self._lead = lead
        self._leader = ""  # who leads, as it was told
        self._trouble = ""  # what the store refused
        self._pause_s = FIRST_PAUSE_S

    async def leads(self, stop: asyncio.Event) -> bool:
        """Whether the lead is held, after waiting for it a moment. Raises what no waiting mends."""
        try:
            held = await self._lead.acquire(wait_s=STANDBY_POLL_S, poll_s=STANDBY_POLL_S)
            if held:
                self._leader = ""
            else:
                await self._tell_who_leads()
        except KorchError as error:
            if not isinstance(error, TransientError) and not may_pass(error):
                raise
            await self._wait(error, stop)
            return False
        if self._trouble:
            log.info("the state file can be used again")
        self._trouble, self._pause_s = "", FIRST_PAUSE_S
        return held

    async def _wait(self, error: KorchError, stop: asyncio.Event) -> None:
        if str(error) != self._trouble:
            self._trouble, self._leader = str(error), ""
            log.error("%s; trying again until it can be used", error)
            notify(f"STATUS=waiting: {error}")
        await _pause(stop, self._pause_s)
        self._pause_s = min(self._pause_s * 2, LONGEST_PAUSE_S)

    async def _tell_who_leads(self) -> None:
        holder = await self._lead.holder()
        who = holder.identity if holder else ""
        if who and who != self._leader:
            log.info("%s leads; waiting", who)
            notify(f"STATUS=waiting: {who} leads")
        self._leader = who


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return
