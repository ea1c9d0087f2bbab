"""The lead for a command that does something else than a master: a master that runs steps aside for a moment.

The command writes that it wants the lead, the master gives it back and takes it again afterwards. Nothing is lost if
either dies meanwhile: the lease is what counts.
"""

from korch.errors import ForbiddenError
from korch.store.base import Store
from korch.store.lease import Lead

KEY = "/korch.dev/lead-wanted"
STEP_ASIDE_S = 1.0  # for the one who asked to take it
WAIT_S = 10.0


async def take_lead(store: Store, lead: Lead) -> None:
    """Hold the lead; a master steps aside, other commands are waited for. `ForbiddenError` if that takes too long."""
    if await lead.acquire(wait_s=0.0):
        return
    holder = await lead.holder()
    if holder is not None and holder.note.get("doing") == "master":
        await store.put(KEY, lead.identity.encode())
    if not await lead.acquire(wait_s=WAIT_S):
        who = f" ({holder.identity}: {holder.note.get('doing', '')})" if holder is not None else ""
        raise ForbiddenError(
            f"another korch leads this cluster now{who}", hint="Wait until it is done, then try again."
        )


async def is_wanted(store: Store) -> bool:
    """Whether somebody asks the master for the lead; each request is told once."""
    found = await store.get(KEY)
    if found is not None:
        await store.delete(KEY)
    return found is not None
