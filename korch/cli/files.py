"""Files that commands read: manifests from files, folders and stdin, with errors that name them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click
import msgspec

from korch.errors import InvalidError
from korch.resources.kinds import kind_of
from korch.resources.meta import Object

MANIFESTS = (".yml", ".yaml", ".json")


def read_text(file: str) -> tuple[str, str]:
    """(text, name for messages) of a file, or of stdin for `-`."""
    if file == "-":
        return sys.stdin.read(), "<stdin>"
    try:
        return Path(file).read_text(encoding="utf-8"), file
    except FileNotFoundError as error:
        raise InvalidError(f"{file} does not exist") from error
    except UnicodeDecodeError as error:
        raise InvalidError(f"{file} is not UTF-8 text") from error
    except OSError as error:
        raise InvalidError(f"{file} cannot be read: {error.strerror}") from error


def manifest_files(names: tuple[str, ...]) -> Iterator[str]:
    """Files as named; of a folder all manifests in it, sorted by name."""
    for name in names:
        folder = Path(name)
        if name == "-" or not _is_folder(folder):
            yield name
            continue
        found = sorted(str(path) for path in folder.iterdir() if path.suffix in MANIFESTS)
        if not found:
            raise InvalidError(f"{name} holds no manifests", hint=f"Their names end in {', '.join(MANIFESTS)}.")
        yield from found


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a name that is too long for the system: reading it will say so
        return False


def read_manifests(names: tuple[str, ...], namespace: str) -> tuple[Object, ...]:
    """All objects of all files; warnings go to stderr."""
    objects = tuple(obj for name in manifest_files(names) for obj in manifests_in(*read_text(name), namespace))
    if not objects:
        raise InvalidError(f"{', '.join(names)}: no objects in it")
    return objects


def manifests_in(text: str, source: str, namespace: str) -> tuple[Object, ...]:
    """The objects of one text, those without a namespace in `namespace`; warnings go to stderr."""
    from korch.resources.manifests import load_manifests

    loaded = load_manifests(text, source)
    for warning in loaded.warnings:
        click.echo(f"Warning: {warning}", err=True)
    return tuple(in_namespace(obj, namespace) for obj, _ in loaded.objects)


def in_namespace(obj: Object, namespace: str) -> Object:
    """The object in `namespace` when it names none itself."""
    if not kind_of(obj).namespaced or obj.metadata.namespace:
        return obj
    return msgspec.structs.replace(obj, metadata=msgspec.structs.replace(obj.metadata, namespace=namespace))
