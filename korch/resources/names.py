"""What a legal name is: judged before a name comes near a host. Rules are Kubernetes' (RFC 1123, label syntax)."""

import re
from collections.abc import Mapping

from korch.resources.problems import Problems
from korch.resources.selectors import label_key_problem, label_value_problem

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", re.ASCII)
_SUBDOMAIN = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*", re.ASCII)
_SHELL_ENV = re.compile(r"[_a-zA-Z][_a-zA-Z0-9]*", re.ASCII)
_PORT = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", re.ASCII)
_SECRET_KEY = re.compile(r"[-._a-zA-Z0-9]+", re.ASCII)
ANNOTATIONS_MAX_BYTES = 256 * 1024  # Kubernetes' TotalAnnotationSizeLimitB


def dns_label_problem(name: str) -> str:
    """Why this is no DNS label (at most 63 of a-z, 0-9, "-", not at the ends), or ""."""
    if len(name) <= 63 and _LABEL.fullmatch(name):
        return ""
    return f'"{name}" is not a DNS label (a-z, 0-9 and "-", not at the ends; at most 63)'


def dns_subdomain_problem(name: str) -> str:
    """Why this is no DNS name (labels joined by dots, at most 253), or ""."""
    if len(name) <= 253 and _SUBDOMAIN.fullmatch(name):
        return ""
    return f'"{name}" is not a DNS name (a-z, 0-9, "-" and "." between; at most 253)'


def env_name_problem(name: str) -> str:
    """Why no environment variable can be called so, or "".

    Stricter than Kubernetes: values reach the engine as shell variables, and a shell knows no dots and dashes there.
    """
    if _SHELL_ENV.fullmatch(name):
        return ""
    return f'"{name}" is not a name for a variable (letters, digits and "_", no digit first)'


def port_name_problem(name: str) -> str:
    """Why no port can be called so (IANA service name: at most 15 of a-z, 0-9, "-", one letter at least), or ""."""
    fits = len(name) <= 15 and _PORT.fullmatch(name) and "--" not in name and re.search("[a-z]", name)
    return "" if fits else f'"{name}" is not a port name (a-z, 0-9 and "-", at least one letter; at most 15)'


def secret_key_problem(key: str) -> str:
    """Why no key of a Secret can be called so, or ""."""
    fits = len(key) <= 253 and _SECRET_KEY.fullmatch(key) and key not in (".", "..")
    return "" if fits else f'"{key}" is not a key (letters, digits, "-", "_", "."; at most 253)'


def check_labels(labels: Mapping[str, str], path: str, problems: Problems) -> None:
    """Note every label that is not legal."""
    for key, value in labels.items():
        problems.check(path, label_key_problem(key) or label_value_problem(value))


def check_annotations(annotations: Mapping[str, str], path: str, problems: Problems) -> None:
    """Note annotations with illegal keys, or too large together. Their values are free text."""
    for key in annotations:
        problems.check(path, label_key_problem(key.lower()))
    size = sum(len(key.encode()) + len(value.encode()) for key, value in annotations.items())
    if size > ANNOTATIONS_MAX_BYTES:
        problems.add(path, f"{size} bytes together; at most {ANNOTATIONS_MAX_BYTES} are kept")
