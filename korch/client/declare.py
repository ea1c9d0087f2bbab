"""Declares workloads: exact images on record, then the objects; nothing is written before all is known to be right."""

import asyncio
import base64
import secrets
from collections.abc import Callable, Sequence
from typing import Literal, TypeVar

import msgspec
from msgspec.structs import replace

from korch.client.base import Client, Workload
from korch.errors import CommandTimeoutError, ForbiddenError, InvalidError, NotFoundError
from korch.resources.annotations import FAILED_REVISION
from korch.resources.codec import with_meta
from korch.resources.images import containers_of, pin_text, pinned_meta, pinned_template
from korch.resources.kinds import kind_of
from korch.resources.meta import Object
from korch.resources.misc import Secret
from korch.resources.node import Node
from korch.resources.pod import Pod, PodSpec
from korch.resources.validate_volumes import VOLUME_DRIVER
from korch.resources.validation import DOCKER_CONFIG_KEY
from korch.resources.workload import DaemonSet, Deployment, ReplicaSet

T = TypeVar("T", bound=Object)
PULL_S = 600.0
SILENT_S = 2.0  # so long nothing is said of an image that is asked for


class Declared(msgspec.Struct, frozen=True):
    """One object after its declaration. `since` is the generation that a wait for it begins at."""

    obj: Object
    what: Literal["created", "configured", "unchanged"]

    @property
    def workload(self) -> Workload | None:
        """The workload to wait for, when it is one."""
        if not isinstance(self.obj, Deployment | ReplicaSet | DaemonSet | Pod):
            return None
        return Workload(self.obj.metadata.namespace, self.obj.metadata.name)

    @property
    def since(self) -> int:
        """The generation of this wish."""
        return self.obj.metadata.generation


def pod_spec_of(obj: Object) -> PodSpec | None:
    """The pod spec in a workload, None for other kinds."""
    if isinstance(obj, Deployment | ReplicaSet | DaemonSet):
        return obj.spec.template.spec
    return obj.spec if isinstance(obj, Pod) else None


class _Asking:
    """Says who is asked for an image, once that takes a while."""

    def __init__(self, image: str, say: Callable[[str], None]) -> None:
        self._image, self._say, self._node, self._takes_long = image, say, "", False
        self._timer = asyncio.get_running_loop().call_later(SILENT_S, self._begin)

    def node(self, name: str) -> None:
        """This node is asked now."""
        self._node = name
        if self._takes_long:
            self._tell()

    def _begin(self) -> None:
        self._takes_long = True
        self._tell()

    def _tell(self) -> None:
        self._say(f"asking {self._node or 'the nodes'} for image {self._image}: pulling ...")

    def end(self) -> None:
        """It is known, or never will be."""
        self._timer.cancel()


async def pin_images(
    client: Client,
    objects: Sequence[Object],
    *,
    timeout_s: float = PULL_S,
    say: Callable[[str], None] = lambda _: None,
) -> tuple[Object, ...]:
    """The objects with what their images' tags stand for now; each image is asked for once.

    A registry is asked with the pull credentials of the object, which may be declared together with it. `say` hears of
    pulls that take a while; `CommandTimeoutError` after `timeout_s` in all.
    """
    try:
        async with asyncio.timeout(timeout_s) as end:
            return await _pin_images(client, objects, say)
    except TimeoutError as error:
        if not end.expired():
            raise
        raise CommandTimeoutError(
            f"the images could not be asked for within {timeout_s:.0f} s; nothing was declared",
            host="",
            hint="What nodes have pulled by then stays there: try again, or give more time with --timeout.",
        ) from error


async def _pin_images(client: Client, objects: Sequence[Object], say: Callable[[str], None]) -> tuple[Object, ...]:
    exact: dict[tuple[str, ...], str] = {}
    pinned: list[Object] = []
    for obj in objects:
        spec = pod_spec_of(obj)
        if spec is None or not spec.containers:
            pinned.append(obj)
            continue
        names = tuple(ref.name for ref in spec.image_pull_secrets)
        found: dict[str, str] = {}
        for container in containers_of(spec):
            never = container.image_pull_policy == "Never"
            key = (container.image, "Never" if never else "", *((obj.metadata.namespace, *names) if names else ()))
            if key not in exact:
                auth = await _pull_auth(client, objects, names, obj.metadata.namespace or "default")
                asking = _Asking(container.image, say)
                try:
                    exact[key] = await client.resolve_image(
                        container.image, auth=auth, pull=not never, of=obj, on_asking=asking.node
                    )
                finally:
                    asking.end()
            found[container.name] = exact[key]
        pinned.append(_pinned(obj, pin_text(spec, found)))
    return tuple(pinned)


async def _pull_auth(client: Client, objects: Sequence[Object], names: Sequence[str], namespace: str) -> bytes | None:
    """The first of these Secrets that holds an engine's configuration: as declared now, else as stored."""
    declared = {
        obj.metadata.name: obj
        for obj in objects
        if isinstance(obj, Secret) and (obj.metadata.namespace or "default") == namespace
    }
    for name in names:
        try:
            secret = declared.get(name) or await client.get(Secret, name, namespace)
        except NotFoundError:
            continue
        if DOCKER_CONFIG_KEY in secret.data:
            return base64.b64decode(secret.data[DOCKER_CONFIG_KEY])
        if DOCKER_CONFIG_KEY in secret.string_data:
            return secret.string_data[DOCKER_CONFIG_KEY].encode()
    return None


def _pinned(obj: Object, exact: str) -> Object:
    if isinstance(obj, Deployment):
        return replace(obj, spec=replace(obj.spec, template=pinned_template(obj.spec.template, exact)))
    if isinstance(obj, ReplicaSet):
        return replace(obj, spec=replace(obj.spec, template=pinned_template(obj.spec.template, exact)))
    if isinstance(obj, DaemonSet):
        return replace(obj, spec=replace(obj.spec, template=pinned_template(obj.spec.template, exact)))
    return replace(obj, metadata=pinned_meta(obj.metadata, exact))


async def check_ports(client: Client, objects: Sequence[Object]) -> None:
    """Refuse more replicas of a fixed node port than nodes that they may use: they could never all run."""
    usable = await _usable_nodes(client) if any(isinstance(obj, Deployment) for obj in objects) else None
    for obj in objects:
        if not isinstance(obj, Deployment):
            continue
        fixed = [
            port.host_port for found in obj.spec.template.spec.containers for port in found.ports if port.host_port
        ]
        wanted = 1 if obj.spec.replicas is None else obj.spec.replicas
        volume = _named_volume(obj.spec.template.spec)
        if fixed and volume and wanted > 1:
            raise InvalidError(
                f'"{obj.metadata.name}": {wanted} replicas cannot share node port {fixed[0]} on the one node that holds'
                f" volume {volume}",
                hint="All replicas that mount a named volume run on its node. Ask for 1 replica,"
                " or let a free node port be chosen: give the container port alone.",
            )
        if fixed and usable is not None and wanted > usable:
            raise InvalidError(
                f'"{obj.metadata.name}": {wanted} replicas cannot share node port {fixed[0]} on {usable} node(s)',
                hint=f"Ask for at most {usable} replicas, or let a free node port be chosen:"
                " give the container port alone.",
            )


async def _usable_nodes(client: Client) -> int | None:
    """How many nodes there are; None for who may not see them, whom the scheduler's word has to reach."""
    try:
        return len(await client.node_names())
    except ForbiddenError:
        return None


def _named_volume(spec: PodSpec) -> str:
    """The first volume of a node's engine that the pod mounts, else ""."""
    found = (volume for volume in spec.volumes if volume.csi is not None and volume.csi.driver == VOLUME_DRIVER)
    return next((volume.csi.volume_attributes.get("name", volume.name) for volume in found if volume.csi), "")


def in_inventory(node: Node) -> bool:
    """Whether the last look found it there."""
    return all(found.reason != "NotInInventory" for found in node.status.conditions if found.type == "Ready")


async def check_names(client: Client, objects: Sequence[Object]) -> None:
    """Refuse a deployment and a daemon set of one name: korch finds their containers by it."""
    for obj in objects:
        other: type[Deployment | DaemonSet] = DaemonSet if isinstance(obj, Deployment) else Deployment
        if not isinstance(obj, Deployment | DaemonSet):
            continue
        name, namespace = obj.metadata.name, obj.metadata.namespace or "default"
        same = [
            found
            for found in (*objects, *(await client.list(other, namespace)).items)
            if isinstance(found, other)
            and (found.metadata.name, found.metadata.namespace or "default") == (name, namespace)
        ]
        if same:
            kind, taken = kind_of(obj).name, kind_of(same[0]).name
            raise InvalidError(
                f'{kind} "{name}": there is a {taken} of that name, and containers are found by it',
                hint=f"Choose another name, or delete the {taken} first.",
            )


async def declare(client: Client, objects: Sequence[Object]) -> tuple[Declared, ...]:
    """Apply in order. A revision that was given up before is tried again: somebody asks for it."""
    declared = []
    for obj in objects:
        applied: Object
        applied, what = await client.apply(obj)
        if isinstance(applied, Deployment) and FAILED_REVISION in applied.metadata.annotations:
            meta = applied.metadata
            again = await client.modify(Deployment, meta.name, meta.namespace, tried_again)
            applied, what = again, "configured"
        declared.append(Declared(applied, what))
    return tuple(declared)


def tried_again(deployment: Deployment) -> Deployment:
    """The deployment without the note that its revision has failed before."""
    kept = {key: text for key, text in deployment.metadata.annotations.items() if key != FAILED_REVISION}
    return with_meta(deployment, annotations=kept)


def title(obj: Object) -> str:
    """`deployment/web`."""
    return f"{kind_of(obj).name.lower()}/{obj.metadata.name}"


def new_token() -> str:
    """A few random characters for a new Secret's name."""
    return secrets.token_hex(4)
