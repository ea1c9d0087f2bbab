"""ConfigMaps and Secrets in containers of both engines: environment, files, single files, and what a change does."""

import json

import pytest

from tests.lab.faulty import Faulty
from tests.lab.mastering import all_ready, births, eventually, mastered

pytestmark = pytest.mark.faults
HIDDEN = "s3cr3t-value"
VALUES = """\
apiVersion: v1
kind: ConfigMap
metadata: {{name: conf}}
data: {{app.conf: "{text}", LEVEL: debug}}
binaryData: {{blob: AAEC}}
---
apiVersion: v1
kind: Secret
metadata: {{name: keys}}
stringData: {{password: {hidden}}}
---
"""
POD = """\
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: values}}}}
spec:
  nodeSelector: {{kubernetes.io/hostname: {node}}}
  terminationGracePeriodSeconds: 1
  containers:
    - name: web
      image: "{image}"
      securityContext: {{runAsUser: 1234, runAsGroup: 1234}}
      envFrom: [{{prefix: C_, configMapRef: {{name: conf}}}}]
      env:
        - {{name: LEVEL, valueFrom: {{configMapKeyRef: {{name: conf, key: LEVEL}}}}}}
        - {{name: PASSWORD, valueFrom: {{secretKeyRef: {{name: keys, key: password}}}}}}
        - {{name: NONE, valueFrom: {{configMapKeyRef: {{name: none, key: none, optional: true}}}}}}
      volumeMounts:
        - {{name: conf, mountPath: /etc/conf}}
        - {{name: conf, mountPath: /etc/one.conf, subPath: app.conf}}
        - {{name: keys, mountPath: /etc/keys}}
        - {{name: none, mountPath: /etc/none}}
        - {{name: memory, mountPath: /fast}}
        - {{name: host, mountPath: /of-host, subPath: release}}
  volumes:
    - {{name: conf, configMap: {{name: conf}}}}
    - {{name: keys, secret: {{secretName: keys, defaultMode: 292, items: [{{key: password, path: db/password}}]}}}}
    - {{name: none, configMap: {{name: none, optional: true}}}}
    - {{name: memory, emptyDir: {{medium: Memory, sizeLimit: 1Mi}}}}
    - {{name: host, hostPath: {{path: /etc/korch-test, type: Directory}}}}
---
"""
LOOK = """
for path in /etc/conf/app.conf /etc/one.conf /etc/keys/db/password; do echo "$path $(cat "$path")"; done
echo "none $(ls /etc/none) blob $(wc -c </etc/conf/blob) mode $(stat -L -c %a /etc/keys/db/password)"
echo "env $LEVEL $C_LEVEL $PASSWORD [$NONE] host $(cat /of-host/name) $(df /fast | tail -n 1 | cut -d " " -f 1)"
touch /etc/conf/x 2>/dev/null && echo "it can be written" || :
"""
BOTH = {"d1": "on-docker", "p1": "on-podman"}


def applied(site: Faulty, text: str) -> None:
    manifest = site.korch.cwd / "values.yml"
    manifest.write_text(text)
    site.korch("apply", "-f", str(manifest), "--no-wait")


def inside(site: Faulty, node: str, script: str) -> str:
    """What a script in the pod's container says."""
    engine = site.engine(node)
    name = site.shell(node, f"{engine} ps --filter label=korch.dev/pod={BOTH[node]} --format '{{{{.Names}}}}'").strip()
    return site.shell(node, 'exec "$1" exec "$2" sh -c "$3"', engine, name, script)


def test_values_reach_containers_and_follow_their_objects(faulty: Faulty) -> None:
    image = faulty.image()
    for node in BOTH:
        faulty.shell(node, "mkdir -p /etc/korch-test/release && echo lab >/etc/korch-test/release/name")
    pods = "".join(POD.format(name=name, node=node, image=image) for node, name in BOTH.items())
    with mastered(faulty):
        applied(faulty, pods)  # before there is what they need
        applied(faulty, VALUES.format(text="old", hidden=HIDDEN))
        eventually("both run", lambda: all_ready(faulty, "on-", 2))
        for node in BOTH:
            assert inside(faulty, node, LOOK).splitlines() == [
                "/etc/conf/app.conf old",
                "/etc/one.conf old",
                f"/etc/keys/db/password {HIDDEN}",
                "none  blob 3 mode 444",
                f"env debug debug {HIDDEN} [] host lab tmpfs",
            ]
            assert HIDDEN not in faulty.shell(node, "cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
        before = births(faulty)
        applied(faulty, VALUES.format(text="new", hidden=HIDDEN))
        for node in BOTH:
            eventually(
                f"{node}: new", lambda node=node: inside(faulty, node, "cat /etc/conf/app.conf").strip() == "new"
            )
            assert inside(faulty, node, "cat /etc/one.conf").strip() == "old", "a single file is as it was at the start"
        assert births(faulty) == before, "nothing was started again"
        for node in BOTH:
            (file,) = faulty.shell(node, "ls /var/lib/korch/*/volumes/*/keys/db/password").split()
            assert faulty.shell(node, f"cat {file}") == HIDDEN
            assert HIDDEN not in faulty.shell(node, f"su nobody -s /bin/sh -c 'cat {file}' 2>&1 || :")
        for name in BOTH.values():
            faulty.korch("delete", "pod", name)
        eventually("they are gone", lambda: not faulty.korch.objects("pods"))
        for node in BOTH:
            left = faulty.shell(node, "find /var/lib/korch/*/volumes -mindepth 1 2>/dev/null || :")
            assert left == "", left
    assert HIDDEN not in json.dumps(faulty.korch.objects("events"))
