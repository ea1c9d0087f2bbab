"""The words after `docker run` or `podman run` for a wish. Pure; the differences of the engines stand here."""

from collections.abc import Iterable

from korch.engines.environ import Environment, split_environment
from korch.engines.names import labels_of
from korch.engines.wish import ContainerWish, EngineName, Mount, PublishedPort
from korch.errors import InvalidError

KEPT_FILES = "@korch/"  # begins a mount's source in place of the pod's folder of files, which only the node knows
OF_SANDBOX = "@korch-sandbox"  # for the sandbox's id; with a path, for the volume that the sandbox has there
_CPU_PERIOD_US = 100_000
_ARGV_LIMIT = 64_000  # bytes; the whole command travels as one word of at most 128 KiB in base64


def run(engine: EngineName, wish: ContainerWish) -> tuple[str, ...]:
    """Words for `ENGINE run`: detached, never pulling. Without environment values: see `split_environment`.

    With `--attach` first they are for `ENGINE create`, and a start follows. Running it twice is safe: the
    second fails on the name. Raises `InvalidError` for what this engine cannot do.
    """
    words = (
        *_first_words(engine, wish),
        *("--name", wish.name, "--pull", "never"),
        *_pairs("--label", (f"{key}={value}" for key, value in sorted(labels_of(wish.identity).items()))),
        *("--restart", wish.restart, "--stop-timeout", str(wish.stop_grace_s)),
        *(("--stop-signal", wish.stop_signal) if wish.stop_signal else ()),
        *(("--network", f"container:{OF_SANDBOX}") if wish.sandbox else ()),
        *_log_words(engine, wish),
        *_env_words(split_environment(engine, wish.env)),
        *_pairs("--publish", (_publish(port) for port in wish.ports)),
        *_limit_words(wish),
        *_security_words(wish),
        *(word for mount in wish.mounts for word in _mount_words(engine, mount)),
        *_process_words(engine, wish),
    )
    if sum(len(word.encode("utf-8", "surrogatepass")) + 3 for word in words) > _ARGV_LIMIT:
        raise InvalidError(
            f"container {wish.identity.container}: command and arguments are longer than {_ARGV_LIMIT} bytes",
            hint="Put long texts into the image, a volume, or an environment variable.",
        )
    if any("\0" in word for word in words):
        raise InvalidError(f"container {wish.identity.container}: a setting holds a NUL byte")
    return words


def _first_words(engine: EngineName, wish: ContainerWish) -> tuple[str, ...]:
    """Docker ends the input after its first client only for a container that is made with `--attach`, then started."""
    return ("--attach", "stdin") if engine == "docker" and wish.stdin and wish.stdin_once else ("--detach",)


def _pairs(flag: str, values: Iterable[str]) -> tuple[str, ...]:
    return tuple(word for value in values for word in (flag, value))


def _env_words(environment: Environment) -> tuple[str, ...]:
    """Podman and Docker let `-e` win over the file; no name stands in both."""
    words = _pairs("--env", (name for name, _ in environment.exported))
    return (*words, "--env-file", "/dev/stdin") if environment.file else words


def _log_words(engine: EngineName, wish: ContainerWish) -> tuple[str, ...]:
    """The driver is named because journald and syslog, a host's possible default, refuse these options.

    Podman's k8s-file keeps one file and starts over when it is full.
    """
    size = max(1, wish.log_max_bytes // 1024)
    if engine == "podman":
        return ("--log-driver", "k8s-file", "--log-opt", f"max-size={size}k")
    options = (f"max-size={size}k", f"max-file={max(1, wish.log_max_files)}")
    return ("--log-driver", "json-file", *_pairs("--log-opt", options))


def _publish(port: PublishedPort) -> str:
    """`IP:HOST:CONTAINER/PROTO`; an empty host port lets the engine choose."""
    address = f"[{port.host_ip}]" if ":" in port.host_ip else port.host_ip
    host = str(port.host_port) if port.host_port else ""
    head = f"{address}:{host}:" if address else (f"{host}:" if host else "")
    return f"{head}{port.container_port}/{port.protocol.lower()}"


def _limit_words(wish: ContainerWish) -> tuple[str, ...]:
    """Period and quota instead of `--cpus`: Docker refuses `--cpus` above the CPUs of the machine."""
    words: list[str] = []
    if wish.cpu_limit_millis:
        quota = max(1000, wish.cpu_limit_millis * _CPU_PERIOD_US // 1000)
        words += ["--cpu-period", str(_CPU_PERIOD_US), "--cpu-quota", str(quota)]
    if wish.cpu_request_millis:
        words += ["--cpu-shares", str(min(262_144, max(2, wish.cpu_request_millis * 1024 // 1000)))]
    if wish.memory_limit_bytes:
        words += ["--memory", f"{wish.memory_limit_bytes}b"]
    return tuple(words)


def _security_words(wish: ContainerWish) -> tuple[str, ...]:
    words: list[str] = []
    if wish.user:
        words += ["--user", wish.user]
    if wish.read_only:
        words.append("--read-only")
    if wish.privileged:
        words.append("--privileged")
    if wish.no_new_privileges:
        words += ["--security-opt", "no-new-privileges"]
    return (*words, *_pairs("--cap-add", wish.cap_add), *_pairs("--cap-drop", wish.cap_drop))


def _process_words(engine: EngineName, wish: ContainerWish) -> tuple[str, ...]:
    """Everything about the process; the image and its arguments stand last.

    Docker takes the host name from the sandbox, and refuses to be told; Podman would make one up.
    """
    words: list[str] = []
    if wish.hostname and not (engine == "docker" and wish.sandbox):
        words += ["--hostname", wish.hostname]
    if wish.working_dir:
        words += ["--workdir", wish.working_dir]
    if wish.stdin:
        words.append("--interactive")
    if wish.tty:
        words.append("--tty")
    if wish.entrypoint:
        if not wish.entrypoint[0]:
            raise InvalidError(f"container {wish.identity.container}: the first word of command is empty")
        words += ["--entrypoint", wish.entrypoint[0]]
    return (*words, wish.image, *wish.entrypoint[1:], *wish.args)


def _mount_words(engine: EngineName, mount: Mount) -> tuple[str, ...]:
    _refuse_bad_path(mount.target, "mountPath")
    match mount.kind:
        case "tmpfs":
            size = f",size={mount.size_bytes}" if mount.size_bytes else ""
            return ("--tmpfs", f"{_no_separator(mount.target, ':')}:rw{size}")
        case "scratch":
            return ("--volume", _no_separator(mount.target, ":"))
        case "volume":
            return ("--volume", _volume_text(mount))
        case "bind":
            _refuse_bad_path(mount.source, "hostPath")
            return _bind_words(mount)
        case "files":
            return _file_words(mount)
        case "shared":
            # Whatever the image has there: what pods share begins empty, and belongs to nobody.
            options = "ro,nocopy" if mount.read_only else "nocopy"
            return ("--volume", f"{OF_SANDBOX}{mount.source}:{_no_separator(mount.target, ':')}:{options}")


def _bind_words(mount: Mount) -> tuple[str, ...]:
    """`--mount` fails when the source is missing, as it should; its list has no room for commas, `--volume` has."""
    if "," in mount.source + mount.target or '"' in mount.source + mount.target:
        _no_separator(mount.source, ":")
        return ("--volume", _volume_text(mount))
    read_only = ",readonly" if mount.read_only else ""
    return ("--mount", f"type=bind,source={mount.source},target={mount.target}{read_only}")


def _file_words(mount: Mount) -> tuple[str, ...]:
    """The node's script puts the pod's folder there for `KEPT_FILES`. Read-only, as in Kubernetes."""
    _refuse_bad_path(f"/{mount.source}", "subPath")
    if "," in mount.source + mount.target or '"' in mount.source + mount.target:
        raise InvalidError(f'mountPath "{mount.target}" and subPath must hold no "," and no quotes')
    return ("--mount", f"type=bind,source={KEPT_FILES}{mount.source},target={mount.target},readonly")


def _volume_text(mount: Mount) -> str:
    return f"{mount.source}:{_no_separator(mount.target, ':')}" + (":ro" if mount.read_only else "")


def _refuse_bad_path(path: str, field_name: str) -> None:
    if not path.startswith("/") or ".." in path.split("/"):
        raise InvalidError(f'{field_name} "{path}" must be an absolute path without ".."')
    if any(ord(ch) < 32 for ch in path):
        raise InvalidError(f"{field_name} {path!r} holds a control character")


def _no_separator(path: str, separator: str) -> str:
    if separator in path:
        raise InvalidError(f'path "{path}" holds a "{separator}", which engines cannot mount')
    return path
