"""What is special about namespaces: where objects belong, what each namespace is given, when one may go. Pure."""

from collections.abc import Iterable

from korch.errors import ForbiddenError
from korch.resources.config import DEFAULT_ACCOUNT, ROOT_CA
from korch.resources.defaults import DEFAULT_NAMESPACE
from korch.resources.kinds import CONFIGMAP, SERVICEACCOUNT, Kind, kind_of
from korch.resources.meta import Object


def home_of(obj: Object) -> str:
    """The namespace of an object that names one, or none; "" when its kind is in no namespace."""
    return (obj.metadata.namespace or DEFAULT_NAMESPACE) if kind_of(obj).namespaced else ""


def given_keys(namespace: str) -> tuple[str, ...]:
    """Where the objects stand that a namespace is given: they keep it from nothing, and go with it."""
    return (SERVICEACCOUNT.key(namespace, DEFAULT_ACCOUNT), CONFIGMAP.key(namespace, ROOT_CA))


def check_may_go(name: str) -> None:
    """Refuse to remove the namespace that is always there."""
    if name == DEFAULT_NAMESPACE:
        raise ForbiddenError(f'namespace "{name}" always exists', hint="Delete what is in it instead.")


def check_empty(name: str, kind: Kind, keys: Iterable[str]) -> None:
    """Refuse to remove a namespace in which objects of a kind stand at these keys, other than what it was given."""
    given = given_keys(name)
    if any(key not in given for key in keys):
        hint = f"See `korch get {kind.plural} -n {name}`."
        raise ForbiddenError(f'namespace "{name}" still holds {kind.plural}: delete them first', hint=hint)
