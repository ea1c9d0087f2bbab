"""Identity of pod templates and specs, and the arithmetic of rolling updates."""

import hashlib
from functools import lru_cache
from typing import Any

import msgspec
from msgspec.structs import replace

from korch.errors import InvalidError
from korch.resources.meta import Struct
from korch.resources.pod import PodSpec, VolumeProjection
from korch.resources.workload import DeploymentStrategy, PodTemplateSpec

TEMPLATE_HASH_LABEL = "pod-template-hash"
PUBLISH_ANNOTATION = "korch.dev/publish"
_SAFE = "bcdfghjklmnpqrstvwxz2456789"  # Kubernetes' alphabet for generated names: no vowels, no look-alikes


def safe_digits(number: int, count: int) -> str:
    """`count` characters that can stand in a name, from a non-negative number."""
    digits = ""
    for _ in range(count):
        number, rest = divmod(number, len(_SAFE))
        digits += _SAFE[rest]
    return digits


def digest(value: Struct, *more: str) -> str:
    """Ten characters that stand for a value: equal values give equal ones, on every machine and run."""
    raw = hashlib.sha256(msgspec.json.encode([_essence(value), *more], order="deterministic")).digest()
    return safe_digits(int.from_bytes(raw), 10)


def _essence(value: Any) -> Any:
    """Plain data without what says no more than the default; the encoder keeps `{}` where a default was written out."""
    if isinstance(value, msgspec.Struct):
        parts = ((name, getattr(value, field), default) for name, field, default in _fields(type(value)))
        return {name: _essence(part) for name, part, default in parts if part != default}
    if isinstance(value, tuple):
        return [_essence(item) for item in value]
    return value


@lru_cache(maxsize=256)
def _fields(type_: type[msgspec.Struct]) -> tuple[tuple[str, str, Any], ...]:
    """(wire name, field, default) of each field."""
    return tuple(
        (f.encode_name, f.name, f.default if f.default_factory is msgspec.NODEFAULT else f.default_factory())
        for f in msgspec.structs.fields(type_)
    )


def template_hash(template: PodTemplateSpec) -> str:
    """The `pod-template-hash` of a template: another one means that pods must be replaced."""
    labels = {key: value for key, value in template.metadata.labels.items() if key != TEMPLATE_HASH_LABEL}
    return digest(replace(template, metadata=replace(template.metadata, labels=labels)))


def spec_hash(spec: PodSpec, *, publish: str = "") -> str:
    """Stands for all that the running container is made from; where the pod may run is left out.

    `publish` is the pod's `korch.dev/publish` annotation, which adds published ports.
    """
    bare = replace(
        spec,
        node_name="",
        node_selector={},
        affinity=None,
        tolerations=(),
        topology_spread_constraints=(),
        scheduler_name="",
        image_pull_secrets=(),
    )
    return digest(bare, publish)


def secret_names(spec: PodSpec) -> frozenset[str]:
    """The Secrets of its namespace that a pod uses: environment, files, and pull credentials."""
    names = {ref.name for ref in spec.image_pull_secrets}
    names |= {volume.secret.secret_name for volume in spec.volumes if volume.secret is not None}
    names |= {part.secret.name for part in _projections(spec) if part.secret is not None}
    for container in (*spec.init_containers, *spec.containers):
        names |= {source.secret_ref.name for source in container.env_from if source.secret_ref}
        sources = (env.value_from for env in container.env if env.value_from)
        names |= {source.secret_key_ref.name for source in sources if source.secret_key_ref}
    return frozenset(names - {""})


def config_map_names(spec: PodSpec) -> frozenset[str]:
    """The ConfigMaps of its namespace that a pod uses."""
    names = {volume.config_map.name for volume in spec.volumes if volume.config_map is not None}
    names |= {part.config_map.name for part in _projections(spec) if part.config_map is not None}
    for container in (*spec.init_containers, *spec.containers):
        names |= {source.config_map_ref.name for source in container.env_from if source.config_map_ref}
        sources = (env.value_from for env in container.env if env.value_from)
        names |= {source.config_map_key_ref.name for source in sources if source.config_map_key_ref}
    return frozenset(names - {""})


def _projections(spec: PodSpec) -> tuple[VolumeProjection, ...]:
    return tuple(part for volume in spec.volumes if volume.projected is not None for part in volume.projected.sources)


def resolve_int_or_percent(value: int | str, total: int, *, round_up: bool) -> int:
    """A count from a number or from a percentage (`"25%"`) of `total`, rounded as told."""
    if isinstance(value, int):
        return value
    digits = value.removesuffix("%")
    if digits == value or not (digits.isascii() and digits.isdigit()):
        raise InvalidError(f'"{value}" is neither a number nor a percentage', hint='Write 1 or "25%".')
    return (int(digits) * total + (99 if round_up else 0)) // 100


def rolling_bounds(strategy: DeploymentStrategy, replicas: int) -> tuple[int, int]:
    """(surge, unavailable) pods of a rolling update; never both 0, or nothing could move. Kubernetes' rounding."""
    rolling = strategy.rolling_update
    wanted_surge = "25%" if rolling is None or rolling.max_surge is None else rolling.max_surge
    wanted_gap = "25%" if rolling is None or rolling.max_unavailable is None else rolling.max_unavailable
    surge = resolve_int_or_percent(wanted_surge, replicas, round_up=True)
    gap = resolve_int_or_percent(wanted_gap, replicas, round_up=False)
    return (surge, gap) if surge or gap else (0, 1)
