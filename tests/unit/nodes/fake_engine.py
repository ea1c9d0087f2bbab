"""A container engine that only remembers: put on PATH as `docker` (or `podman`), beside a folder for its state.

It understands what korch's scripts say, and notes what it saw: environment, inherited descriptors, order of calls.
Control files in the state folder: `fail-WORD` (text and exit status of the next calls of that word), `hold-WORD` (wait
until it is gone), `spool-WORD` (the path of a file to hold open meanwhile).
"""

import fcntl
import json
import os
import re
import sys
import time
from pathlib import Path

STATE = Path(__file__).resolve().parent / "engine-state"
WITH_VALUE = {
    *("--name", "--pull", "--label", "--restart", "--stop-timeout", "--log-driver", "--log-opt", "--env", "--env-file"),
    *("--publish", "--cpu-period", "--cpu-quota", "--cpu-shares", "--memory", "--user", "--security-opt", "--cap-add"),
    *("--cap-drop", "--hostname", "--workdir", "--entrypoint", "--volume", "--mount", "--tmpfs", "--network"),
    "--stop-signal",
}


def main(argv):
    config = None
    if argv[0] == "--config":
        config, argv = argv[1], argv[2:]
    word = argv[0].lstrip("-")
    note(word, argv, config)
    spool = STATE / f"spool-{word}"
    held = open(spool.read_text(), "wb") if spool.exists() else None  # noqa: F841, SIM115
    while (STATE / f"hold-{word}").exists():
        time.sleep(0.01)
    failure = STATE / f"fail-{word}"
    with (STATE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        data = json.loads((STATE / "data.json").read_text())
        status = globals().get(f"do_{word}", unknown)(argv[1:], data, failure if failure.exists() else None)
        (STATE / "data.json").write_text(json.dumps(data))
    return status


def note(word, argv, config):
    descriptors = sorted(int(name) for name in os.listdir("/proc/self/fd"))
    line = {"word": word, "argv": argv, "fd9": 9 in descriptors, "config": None}
    if config:
        path = Path(config)
        line["config"] = {
            "folder": config,
            "mode": oct(path.stat().st_mode),
            "text": (path / "config.json").read_text(),
        }
    with (STATE / "calls").open("a") as calls:
        calls.write(json.dumps(line) + "\n")


def unknown(argv, data, failure):
    sys.stderr.write("the fake engine does not know this\n")
    return 64


def failed(failure):
    status, _, text = failure.read_text().partition(" ")
    sys.stderr.write(text)
    return int(status)


def do_run(argv, data, failure):
    options, rest = [], list(argv)
    while rest and rest[0].startswith("--"):
        flag = rest.pop(0)
        options.append((flag, rest.pop(0) if flag in WITH_VALUE else ""))
    name = dict(options)["--name"]
    if name in data["containers"]:
        sys.stderr.write(f'Conflict. The container name "/{name}" is already in use by container "x".\n')
        return 125
    labels = dict(value.split("=", 1) for flag, value in options if flag == "--label")
    env = {value: os.environ[value] for flag, value in options if flag == "--env"}
    text = Path("/dev/stdin").read_text() if ("--env-file", "/dev/stdin") in options else ""
    env |= dict(line.split("=", 1) for line in text.splitlines())
    data["serial"] += 1
    data["containers"][name] = {
        "Id": f"{data['serial']:064x}",
        "ID": f"{data['serial']:064x}",
        "Name": "/" + name,
        "Image": "sha256:" + "1" * 64,
        "Config": {"Image": rest[0], "Labels": labels},
        "RestartCount": 0,
        "HostConfig": {"RestartPolicy": {"Name": "no"}},
        "State": {"Status": "created" if failure else "running", "StartedAt": "2026-01-02T03:04:05.5Z", "ExitCode": 0},
        "NetworkSettings": {"Ports": {}, "Networks": {}, "IPAddress": ""},
        "Mounts": [
            {"Destination": value, "Name": f"volume-{data['serial']}-{number}"}
            for number, (flag, value) in enumerate(options)
            if flag == "--volume" and ":" not in value
        ],
        "options": options,
        "env": env,
        "words": rest,
    }
    if failure:
        return failed(failure)
    print(data["containers"][name]["Id"])
    return 0


def do_start(argv, data, failure):
    if failure:
        return failed(failure)
    names = matching(argv, data)
    if not names:
        sys.stderr.write(f"Error response from daemon: No such container: {argv[0]}\n")
        return 1
    data["containers"][names[0]]["State"]["Status"] = "running"
    return 0


def do_stop(argv, data, failure):
    for name in matching(argv[2:], data):
        data["containers"][name]["State"]["Status"] = "exited"
    return 0


def do_exec(argv, data, failure):
    return failed(failure) if failure else 0


def do_rm(argv, data, failure):
    if failure:
        return failed(failure)
    for name in matching([word for word in argv if not word.startswith("-")], data):
        del data["containers"][name]
    return 0


def matching(words, data):
    return [name for name, found in data["containers"].items() if name in words or found["Id"] in words]


def do_ps(argv, data, failure):
    if failure:
        return failed(failure)
    wanted = [argv[i + 1].removeprefix("label=") for i, word in enumerate(argv) if word == "--filter"]
    for found in data["containers"].values():
        labels = found["Config"]["Labels"]
        have = {*labels, *(f"{key}={value}" for key, value in labels.items()), f"id={found['Id']}"}
        if all(want in have for want in wanted) and ("-a" in argv or found["State"]["Status"] == "running"):
            print(found["Id"])
    return 0


def do_inspect(argv, data, failure):
    template, words = argv[argv.index("--format") + 1], argv[argv.index("--format") + 2 :]
    status = 0
    for word in words:
        names = matching([word], data)
        if not names:
            sys.stderr.write(f"Error response from daemon: No such container: {word}\n")
            status = 1
        for name in names:
            print(fill(template, data["containers"][name]))
    return status


def fill(template, value):
    template = re.sub(
        r"\{\{range \.Mounts\}\}(.*)\{\{end\}\}",
        lambda match: "".join(fill(match[1], mount) for mount in value["Mounts"]),
        template,
    )

    def one(match):
        if match[1]:
            return value["Config"]["Labels"].get(match[1], "<no value>")
        found = value
        for part in match[3].strip(".").split("."):
            found = found.get(part) if isinstance(found, dict) else None
        return json.dumps(found) if match[2] else str(found)

    return re.sub(r'\{\{(?:index \.Config\.Labels "([^"]+)"|(json )?(\.[\w.]+))\}\}', one, template)


def do_info(argv, data, failure):
    if failure:
        print("|||null")
        return failed(failure)
    print(f'20.10.24|{STATE}|x86_64|["name=seccomp"]')
    return 0


def do_version(argv, data, failure):
    print("podman version 4.3.1")
    return 0


def do_volume(argv, data, failure):
    print("\n".join(data["volumes"]))
    return 0


def do_images(argv, data, failure):
    for found in data["images"].values():
        if "-q" in argv:
            print(found["Id"])
        else:
            for tag in found["RepoTags"] or ["<none>:<none>"]:
                repo, _, name = tag.rpartition(":")
                print("\t".join((found["Id"], repo, name, "<none>", "2MB")))
    return 0


def do_image(argv, data, failure):
    reference = argv[-1]
    for found in data["images"].values():
        if reference in (found["Id"], *found["RepoTags"]):
            print(fill(argv[2], found))
            return 0
    sys.stderr.write(f"Error response from daemon: no such image: {reference}: No such image: {reference}\n")
    return 1


def do_pull(argv, data, failure):
    if failure:
        return failed(failure)
    reference = argv[-1]
    identifier = "sha256:" + f"{abs(hash_of(reference)):064x}"
    data["images"][reference] = {
        "Id": identifier,
        "ID": identifier,
        "RepoTags": [reference],
        "RepoDigests": [reference.rpartition(":")[0] + "@sha256:" + "a" * 64],
        "Architecture": "amd64",
        "Size": 2000000,
    }
    return 0


def do_import(argv, data, failure):
    if failure:
        return failed(failure)
    (STATE / "imported").write_bytes(sys.stdin.buffer.read())
    identifier = "sha256:" + f"{abs(hash_of(argv[-1])):064x}"
    data["images"][argv[-1]] = {"Id": identifier, "ID": identifier, "RepoTags": [argv[-1]], "RepoDigests": []}
    print(identifier)
    return 0


def hash_of(text):
    return sum(ord(ch) * 31**i for i, ch in enumerate(text)) % 2**200


def do_rmi(argv, data, failure):
    if failure:
        return failed(failure)
    for reference, found in list(data["images"].items()):
        if found["Id"].removeprefix("sha256:") == argv[0]:
            del data["images"][reference]
            return 0
    sys.stderr.write("Error: No such image\n")
    return 1


def do_logs(argv, data, failure):
    print("hello\n@korch end\n>x")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
