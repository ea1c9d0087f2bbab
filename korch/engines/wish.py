"""What one container shall be, in the words of an engine: the input of the argv builders. Pure."""

import hashlib
from dataclasses import dataclass, field
from typing import Literal

from korch.engines.names import Identity, container_name

EngineName = Literal["docker", "podman"]


@dataclass(frozen=True, slots=True)
class PublishedPort:
    """`host_port` 0: the engine picks a free one. `host_ip` is where it binds."""

    container_port: int
    host_port: int = 0
    protocol: str = "tcp"
    host_ip: str = ""


@dataclass(frozen=True, slots=True)
class Mount:
    """What appears at `target`. `source`: a path for bind, a volume's name, "" for tmpfs and for a scratch volume.

    "files": a volume of files that korch keeps on the node, `source` its name and a path inside it (`NAME/PATH`).
    "shared": the scratch volume that the pod's sandbox has at `source`.
    """

    kind: Literal["bind", "volume", "scratch", "tmpfs", "files", "shared"]
    target: str
    source: str = ""
    read_only: bool = False
    size_bytes: int = 0  # of a tmpfs; 0 = the engine's default
    make: bool = False  # bind: make the folder when it is missing


@dataclass(frozen=True, slots=True)
class File:
    """One file of a volume; `path` is inside it."""

    path: str
    mode: int
    content: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class FileVolume:
    """Files that korch keeps on the node for one pod, put there all at once."""

    name: str
    files: tuple[File, ...] = ()

    @property
    def version(self) -> str:
        """Stands for all that is in it."""
        found = hashlib.sha256()
        for one in self.files:
            found.update(f"{one.path}\0{one.mode}\0{len(one.content)}\0".encode())
            found.update(one.content)
        return found.hexdigest()[:20]


@dataclass(frozen=True, slots=True)
class EnvValue:
    """One environment variable. `secret` values never reach argv, logs or hashes; none does in `repr`."""

    name: str
    value: str = field(repr=False)
    secret: bool = False


@dataclass(frozen=True, slots=True)
class ContainerWish:
    """One container as it shall be. `image` is a digest reference or an image id, present on the node.

    `entrypoint` and `args` follow Kubernetes: an entrypoint replaces the image's and drops the image's own arguments.
    Zero or empty means: as the engine or the image says.
    """

    identity: Identity
    cluster_name: str
    image: str
    entrypoint: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    env: tuple[EnvValue, ...] = ()
    ports: tuple[PublishedPort, ...] = ()
    mounts: tuple[Mount, ...] = ()
    files: tuple[FileVolume, ...] = ()
    cpu_limit_millis: int = 0
    cpu_request_millis: int = 0
    memory_limit_bytes: int = 0
    working_dir: str = ""
    user: str = ""
    read_only: bool = False
    privileged: bool = False
    no_new_privileges: bool = False
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    hostname: str = ""
    restart: Literal["unless-stopped", "no"] = "no"
    stop_grace_s: int = 30
    log_max_bytes: int = 10 * 1024 * 1024
    log_max_files: int = 3
    tty: bool = False
    stdin: bool = False
    stdin_once: bool = False  # it ends with the first client that was attached to it; Podman does so anyway
    sandbox: str = ""  # name of the container whose network and shared volumes it has
    stop_signal: str = ""

    @property
    def name(self) -> str:
        """The container's name in the engine."""
        who = self.identity
        return container_name(self.cluster_name, who.namespace, who.pod, who.container, who.uid)
