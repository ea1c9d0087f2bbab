"""What every namespace is given, as in Kubernetes: a service account `default` and the certificate of the API.

They are made again when they are deleted, and go with their namespace. The plan is pure; the loop only carries it out.
"""

import msgspec
from msgspec.structs import replace

from korch.errors import AlreadyExistsError, ConflictError, ForbiddenError, NotFoundError
from korch.objects.objects import Change
from korch.objects.view import View
from korch.resources.config import DEFAULT_ACCOUNT, ROOT_CA, ConfigMap, ServiceAccount
from korch.resources.meta import Object, ObjectMeta
from korch.resources.misc import Namespace
from korch.workqueue import WorkQueue

KINDS = (Namespace, ServiceAccount, ConfigMap)  # what is looked at

_FILE = "ca.crt"
_ABOUT = "kubernetes.io/description"
_SAYS = "The certificate by which clients know the API of this cluster. It is kept as it is."


class GivenPlan(msgspec.Struct, frozen=True):
    """Objects to make and to put right."""

    create: tuple[Object, ...] = ()
    update: tuple[ConfigMap, ...] = ()


def plan_given(space: Namespace, account: ServiceAccount | None, trust: ConfigMap | None, pem: str) -> GivenPlan:
    """What a namespace lacks, of what is there by these names. Without a `pem` no certificate is given.

    The account is its owner's to change (pull secrets, for one); what the certificate says is the cluster's.
    """
    if space.metadata.deletion_timestamp is not None:
        return GivenPlan()
    namespace, create = space.metadata.name, []
    if account is None:
        create.append(ServiceAccount(metadata=ObjectMeta(name=DEFAULT_ACCOUNT, namespace=namespace)))
    if trust is not None:
        right = replace(trust, data={_FILE: pem}, binary_data={})
        return GivenPlan(tuple(create), (right,) if pem and right != trust and not trust.immutable else ())
    meta = ObjectMeta(name=ROOT_CA, namespace=namespace, annotations={_ABOUT: _SAYS})
    more = (ConfigMap(metadata=meta, data={_FILE: pem}),) if pem else ()
    return GivenPlan((*create, *more))


class Giving:
    """Carries out `plan_given` for all namespaces, on a view that knows `KINDS`.

    `pem`: the certificate of the API's authority, or "".
    """

    def __init__(self, view: View, pem: str) -> None:
        self._view, self._pem = view, pem
        self._queue: WorkQueue[str] = WorkQueue("given", self._reconcile)

    async def run(self) -> None:
        """Look at all namespaces, then at what changes, until cancelled."""
        self._view.listen(self._note)
        for space in self._view.all(Namespace):
            self._queue.add(space.metadata.name)
        await self._queue.run(workers=1)

    def _note(self, change: Change[Object]) -> None:
        meta = change.object.metadata
        match change.object:
            case Namespace():
                self._queue.add(meta.name)
            case ServiceAccount() if meta.name == DEFAULT_ACCOUNT:
                self._queue.add(meta.namespace)
            case ConfigMap() if meta.name == ROOT_CA:
                self._queue.add(meta.namespace)

    async def _reconcile(self, name: str) -> float | None:
        """Give a namespace what it lacks."""
        space = self._view.find(Namespace, name, "")
        if space is None:
            return None
        account = self._view.find(ServiceAccount, DEFAULT_ACCOUNT, name)
        plan = plan_given(space, account, self._view.find(ConfigMap, ROOT_CA, name), self._pem)
        for changed in plan.update:
            await self._view.update(changed)
        for made in plan.create:
            try:
                await self._view.create(made)
            except AlreadyExistsError as error:
                raise ConflictError(f"{type(made).__name__} {made.metadata.name} appeared meanwhile") from error
            except (NotFoundError, ForbiddenError):
                return None  # the namespace goes, or is gone
        return None
