"""What an engine's complaint means, in words that people can act on. Pure.

The patterns are the words of Docker 20.10-28 and Podman 4; each was seen in a terminal before it stood here.
"""

import re
from dataclasses import dataclass
from typing import Literal

from korch.engines.wish import EngineName

Step = Literal["pull", "start", "exec", "stop", "remove", "load", "look"]


@dataclass(frozen=True, slots=True)
class Explanation:
    """`reason` is Kubernetes' word for it (or a node state), `message` says what is wrong, `hint` what to do next.

    `transient`: trying the same again soon may help. `node_state` is set when the whole node is concerned.
    """

    reason: str
    message: str
    hint: str = ""
    transient: bool = False
    node_state: Literal["", "EngineDown", "NoPermission", "EngineMissing"] = ""


@dataclass(frozen=True, slots=True)
class _Rule:
    pattern: re.Pattern[str]
    reason: str
    message: str  # may use {image} and the pattern's named groups
    hint: str = ""
    transient: bool = False
    node_state: Literal["", "EngineDown", "NoPermission", "EngineMissing"] = ""


def _rule(pattern: str, reason: str, message: str, hint: str = "", *, transient: bool = False) -> _Rule:
    return _Rule(re.compile(pattern, re.IGNORECASE), reason, message, hint, transient)


def _node(pattern: str, state: Literal["EngineDown", "NoPermission", "EngineMissing"], text: str, hint: str) -> _Rule:
    return _Rule(re.compile(pattern, re.IGNORECASE), state, text, hint, state == "EngineDown", state)


_NODE_RULES = (
    _node(
        r"permission denied while trying to connect|dial unix [^ ]*: connect: permission denied"
        r"|got permission denied|cannot resolve /nonexistent|cannot re-exec process"
        r"|cannot setup namespace|newuidmap|creating runtime static files directory",
        "NoPermission",
        "the user may not use the container engine",
        "Let korch use sudo (ansible_become: true, and NOPASSWD in sudoers), or for Docker: "
        "`sudo usermod -aG docker USER` and log in again.",
    ),
    _node(
        r"sudo: (a password is required|a terminal is required|.*no tty present)|is not in the sudoers file"
        r"|is not allowed to (run|execute)|sudo: command not found|sudo: not found",
        "NoPermission",
        "sudo asks for a password or refuses",
        "Allow it without one: `USER ALL=(ALL) NOPASSWD: ALL` in /etc/sudoers.d/korch; `korch node prepare` does that.",
    ),
    _node(
        r"cannot connect to the docker daemon|is the docker daemon running|error during connect"
        r"|docker.sock: connect: (connection refused|no such file)|cannot connect to podman"
        r"|containerd.sock[^\n]*(connection refused|connection error|no such file)|docker.sock[^\n]*\bEOF\b",
        "EngineDown",
        "the container engine does not answer",
        "Start it: `sudo systemctl start docker`; its log: `journalctl -u docker`.",
    ),
    _node(
        r"(docker|podman): (command )?not found|(docker|podman): No such file",
        "EngineMissing",
        "neither Docker nor Podman is installed",
        "Install one: `korch node prepare NODE`, or `apt-get install docker.io`.",
    ),
)

_DISK_RULE = _rule(
    r"no space left on device|disk quota exceeded|ENOSPC",
    "DiskPressure",
    "no space left on the engine's disk",
    "Free some: `korch prune`, or `docker system df` on the node shows what takes it.",
)

_PULL_RULES = (
    _rule(
        r"the pull was ended: it would have filled",
        "DiskPressure",
        'image "{image}" does not fit on the engine\'s disk',
        "Free some: `korch prune`, or `docker system df` on the node shows what takes it.",
    ),
    _rule(
        r"no matching manifest for (?P<platform>[\w/]+)|image operating system .* cannot be used|no image found in "
        r"(manifest list|image index) for architecture",
        "ImageNotFound",
        'image "{image}" does not exist for this machine\'s architecture',
        "Build it for this architecture, or keep it off such nodes: --node-selector kubernetes.io/arch=amd64.",
    ),
    _rule(
        r"unauthorized|authentication required|no basic auth credentials|access to the resource is denied|denied: "
        r"|pull access denied|requested access to the resource|invalid username/password|403 \(?forbidden",
        "ImageRefused",
        'the registry refuses "{image}": it does not exist there, or it needs a login',
        "Check the name; for a private one log in here (`docker login`) or give --registry-auth FILE.",
    ),
    _rule(
        r"manifest unknown|manifest for .* not found|repository .* not found|name unknown",
        "ImageNotFound",
        'image "{image}" is not in the registry',
        "Check the name and the tag; push it there, or send it to the nodes with `korch image push {image}`.",
    ),
    _rule(
        r"server gave HTTP response to HTTPS client",
        "ErrImagePull",
        'the registry of "{image}" speaks plain HTTP, and the engine expects HTTPS',
        "Name it in the engine's configuration on the nodes: Docker `insecure-registries`, Podman `insecure = true`.",
    ),
    _rule(
        r"x509:|certificate signed by unknown|tls: ",
        "ErrImagePull",
        'the certificate of the registry of "{image}" is not trusted on the node',
        "Put the registry's CA into /etc/docker/certs.d/REGISTRY/ca.crt (/etc/containers/certs.d for Podman).",
    ),
    _rule(
        r"toomanyrequests|429 too many requests|pull rate limit",
        "ErrImagePull",
        'the registry of "{image}" limits pulls for now',
        "Log in to the registry, or send the image with `korch image push {image}`.",
        transient=True,
    ),
    _rule(
        r"dial tcp|no such host|i/o timeout|connection refused|network is unreachable|no route to host"
        r"|tls handshake timeout|request canceled|context deadline exceeded|connection reset|unexpected EOF"
        r"|\b50[0234] ",
        "ErrImagePull",
        'the node cannot reach the registry of "{image}"',
        "Check the node's network and DNS, or send the image over SSH: `korch image push {image}`.",
        transient=True,
    ),
    _rule(
        r"invalid reference format|repository name must be",
        "InvalidImageName",
        '"{image}" is not an image reference',
        "Write [REGISTRY/]NAME[:TAG] or NAME@sha256:DIGEST; the name is in lower case.",
    ),
)

_NO_IMAGE_RULE = _rule(
    r"no such image|image not known|unable to find image|image not found|not found locally",
    "ErrImageNeverPull",
    'image "{image}" is not on the node',
    "Send it there with `korch image push {image}`, or deploy again so that it is pulled.",
)

_START_RULES = (
    _rule(
        r"apparmor_parser",
        "RunContainerError",
        "the node's kernel has AppArmor on, and its tools are not installed",
        "`apt-get install apparmor` on the node (`korch node prepare NODE` does it), or boot it with apparmor=0.",
    ),
    _rule(
        r"(Bind for |listen \w+ )(?P<where>\[?[0-9a-fA-F.:]+\]?:\d+)[^\n]*"
        r"(port is already allocated|address already in use)"
        r"|(port is already allocated|address already in use)",
        "PortTaken",
        "port {where} of the node is taken",
        "Choose another host port, or stop what listens there (`korch node check NODE` lists listening ports).",
    ),
    _rule(
        r"listen \w+ (?P<where>[^ ]+):\d+: bind: cannot assign requested address|cannot assign requested address",
        "AddressUnknown",
        "the node has no interface with the address {where}",
        "Set korch_address in the inventory to an address of the node that others can reach.",
    ),
    _rule(
        r"(container )?name \"?/?(?P<name>[^\" ]+)\"? is already in use",
        "CreateContainerError",
        "a container named {name} exists already",
        "It is not the one asked for: look at it with `docker inspect`, and remove it if nobody needs it.",
    ),
    _rule(
        r"bind source path does not exist: (?P<path>[^\n]+)|statfs (?P<path2>[^\n:]+): no such file|"
        r"error mounting \"(?P<path3>[^\"]+)\"|mountpoint for",
        "CreateContainerError",
        "the host path {path} cannot be mounted: it does not exist on the node, or is not of the right type",
        "Create it on the node, or use hostPath type DirectoryOrCreate or a named volume.",
    ),
    _rule(
        r"invalid mount|invalid volume spec|must be an absolute path|incorrect volume format|invalid mount option",
        "CreateContainerError",
        "a mount of the container is not possible",
        "Look at the volumes of the workload; the engine's words are in the message.",
    ),
    _rule(
        r"exec:? \"?(?P<what>[^\":\n]+)\"?: executable file not found|"
        r"exec:? \"?(?P<what2>[^\":\n]+)\"?: (stat [^\n]*)?no such file or directory|"
        r"invoke a command that was not found",
        "RunContainerError",
        'the image has no program "{what}"',
        "Check command and args, and the image's entrypoint.",
    ),
    _rule(
        r"exec:? \"?(?P<what>[^\":\n]+)\"?: permission denied|exec format error",
        "RunContainerError",
        'the program "{what}" of the image cannot be run on this machine',
        "Is it executable, and built for this machine's architecture?",
    ),
    _rule(
        r"minimum memory limit allowed|unable to set memory limit|memory\.limit_in_bytes|memory\.max|"
        r"invalid size|minimum memory reservation",
        "CreateContainerError",
        "the memory limit is too small for the engine",
        "Give at least 6Mi; a real program needs more.",
    ),
    _rule(
        r"CPU cfs quota|cpu\.cfs_quota|cpu\.max|Range of CPUs|CPU cfs period|cpu\.shares|invalid CPU",
        "CreateContainerError",
        "the CPU limit does not fit this machine",
        "Give at least 10m and not more than the machine has.",
    ),
    _rule(
        r"unable to find (user|group) (?P<what>[^:\n]+)|no matching entries in (passwd|group) file",
        "CreateContainerError",
        'the image has no user "{what}"',
        "Use a number as runAsUser, or an image that knows the user.",
    ),
    _rule(
        r"invalid (capability|cap)|unknown capability|capability not supported",
        "CreateContainerError",
        "a capability is not known to the engine",
        "Check securityContext.capabilities.",
    ),
)

_EXEC_RULES = (
    _rule(
        r"executable file not found|command that was not found|no such file or directory",
        "ExecFailed",
        "the container has no such program",
        "Check the command; minimal images have no shell.",
    ),
    _rule(
        r"is not running|can only create exec sessions on running|container state improper",
        "ContainerNotRunning",
        "the container is not running",
        "See `korch get pods` and `korch logs`.",
    ),
)

_GONE_RULE = _rule(
    r"no such container|no container with name or id|no such object",
    "ContainerGone",
    "the container does not exist on the node",
    "`korch sync` starts what should run.",
)

_FALLBACK: dict[Step, tuple[str, str]] = {
    "pull": ("ErrImagePull", 'image "{image}" cannot be pulled'),
    "start": ("RunContainerError", "the container cannot be started"),
    "exec": ("ExecFailed", "the command cannot be run in the container"),
    "stop": ("KillContainerError", "the container cannot be stopped"),
    "remove": ("KillContainerError", "the container cannot be removed"),
    "load": ("ErrImagePull", "the image cannot be loaded"),
    "look": ("EngineFailed", "the container engine does not do what it was asked"),
}


def _rules(step: Step) -> tuple[_Rule, ...]:
    match step:
        case "pull" | "load":
            return (*_NODE_RULES, _DISK_RULE, *_PULL_RULES, _NO_IMAGE_RULE)
        case "start":
            return (*_NODE_RULES, _DISK_RULE, _NO_IMAGE_RULE, *_START_RULES, _GONE_RULE)
        case "exec":
            return (*_NODE_RULES, *_EXEC_RULES, _GONE_RULE)
        case _:
            return (*_NODE_RULES, _DISK_RULE, _GONE_RULE)


def explain(stderr: str, *, step: Step, image: str = "", engine: EngineName = "docker") -> Explanation:
    """The first known meaning of what the engine printed; else a general one with the engine's last line."""
    for rule in _rules(step):
        match = rule.pattern.search(stderr)
        if match:
            words = {"image": image, **_groups(match)}
            message = rule.message.format_map(_Blank(words))
            hint = rule.hint.format_map(_Blank(words))
            if engine == "podman":
                hint = hint.replace("`sudo systemctl start docker`; its log: `journalctl -u docker`", _PODMAN_START)
                hint = hint.replace("`docker inspect`", "`podman inspect`").replace("`docker system df`", _PODMAN_DF)
            return Explanation(rule.reason, _with_detail(message, stderr), hint, rule.transient, rule.node_state)
    reason, text = _FALLBACK[step]
    return Explanation(reason, _with_detail(text.format(image=image), stderr), transient=step == "look")


_PODMAN_START = "`podman ps` on the node shows what is wrong"
_PODMAN_DF = "`podman system df`"


class _Blank(dict[str, str]):
    """Placeholders that no group filled read as a question mark."""

    def __missing__(self, key: str) -> str:
        return "?"


def _groups(match: re.Match[str]) -> dict[str, str]:
    """Named groups that took part; `path2` counts as `path`."""
    return {name.rstrip("0123456789"): text.strip() for name, text in match.groupdict().items() if text}


def _with_detail(message: str, stderr: str) -> str:
    detail = last_line(stderr)
    return f"{message} ({detail})" if detail and detail not in message else message


_NOISE = re.compile(
    r"^(Run '\w+ run --help'|See '\w+ run --help'|Trying to pull|time=\".*level=warning|WARN\["
    r"|Error: failed to start containers: )"
)


def last_line(stderr: str, limit: int = 300) -> str:
    """The engine's own words: the last line that says something, without the wrapping that says nothing."""
    lines = [line.strip() for line in stderr.splitlines()]
    telling = [line for line in lines if line and not _NOISE.match(line)]
    if not telling:
        return ""
    line = re.sub(r"^(\w+: )?(Error response from daemon: |Error: )", "", telling[-1])
    line = re.sub(r"^failed to create shim task: OCI runtime create failed: ", "", line)
    line = re.sub(r"driver failed programming external connectivity on endpoint \S+ \([0-9a-f]+\): ", "", line)
    line = re.sub(
        r': \w+ "http://[^"]*docker\.sock[^"]*": dial unix [^:]+: connect: [\w ]+$', "", line
    )  # says it twice
    return line if len(line) <= limit else line[: limit - 1] + "…"
