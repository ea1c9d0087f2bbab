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


_HOST = r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9a-fA-F:]+\])(?::[0-9]{1,5})?"
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_IMAGE = re.compile(
    rf"(?:{_HOST}/)?{_PART}(?:/{_PART})*(?::[A-Za-z0-9_][A-Za-z0-9_.-]{{0,127}})?(?:@[a-z0-9+._-]+:[0-9a-f]{{32,128}})?",
    re.ASCII,
)
_IMAGE_ID = re.compile(r"(?:sha256:)?[0-9a-f]{64}", re.ASCII)


def image_problem(image: str) -> str:
    """Why this is no image reference (`[HOST[:PORT]/]PATH[:TAG][@DIGEST]`, or an image id), or "".

    The grammar is that of github.com/distribution/reference.
    """
    if not image:
        return "an image is needed"
    if len(image) <= 4096 and (_IMAGE.fullmatch(image) or _IMAGE_ID.fullmatch(image)):
        path = re.sub(r":[^:/]*$", "", image.partition("@")[0])
        return "" if len(path) <= 255 else f'"{image[:60]}..." is not an image: its name is longer than 255 characters'
    lower = image.lower()
    if lower != image and _IMAGE.fullmatch(lower):
        return f'"{image}" is not an image: its path has capital letters'
    return f'"{image}" is not an image, such as registry.lab/web:1.4'


def volume_name_problem(name: str) -> str:
    """Why the engine cannot have a volume of that name, or ""."""
    fits = re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}", name, re.ASCII)
    return "" if fits else f'"{name}" is not a name for a volume (letters, digits, "_", "." and "-")'


def text_problem(text: str) -> str:
    """Why this text cannot be handed to a program, or ""."""
    if "\0" in text:
        return "a NUL character cannot be passed on"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "this is not valid Unicode"
    return ""


def path_problem(path: str) -> str:
    """Why this is no absolute path in a container or on a node, or ""."""
    if not path.startswith("/"):
        return f'"{path}" is not an absolute path'
    if ".." in path.split("/"):
        return f'"{path}" leads upwards with ".."'
    return text_problem(path) or ("a path has no line breaks" if "\n" in path else "")


def relative_path_problem(path: str) -> str:
    """Why this is no path inside a volume, or ""."""
    if path.startswith("..") or any(part in ("", ".") for part in path.split("/")):
        return f'"{path}" is not a path inside the volume'
    return path_problem(f"/{path}")
