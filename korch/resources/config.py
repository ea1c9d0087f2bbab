"""What containers are configured with: ConfigMap, ServiceAccount. Shapes are Kubernetes' (core/v1)."""

from korch.resources.meta import Object, ObjectReference
from korch.resources.pod import LocalObjectReference

DEFAULT_ACCOUNT, ROOT_CA = "default", "kube-root-ca.crt"  # what a master gives every namespace


class ConfigMap(Object, frozen=True, kw_only=True):
    """core/v1 ConfigMap: texts in `data`, base64 of anything in `binary_data`; no key stands in both."""

    data: dict[str, str] = {}
    binary_data: dict[str, str] = {}
    immutable: bool | None = None


class ServiceAccount(Object, frozen=True, kw_only=True):
    """core/v1 ServiceAccount: a name that a program outside of pods can get a token for."""

    secrets: tuple[ObjectReference, ...] = ()
    image_pull_secrets: tuple[LocalObjectReference, ...] = ()
    automount_service_account_token: bool | None = None
