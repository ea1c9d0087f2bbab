import base64
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from korch.errors import InvalidError
from korch.resources.app import App, Health, Mount, Port, parse_duration, parse_mount, parse_port
from korch.resources.codec import from_dict, to_dict, with_meta
from korch.resources.defaults import with_defaults
from korch.resources.expand import expand, unused_secrets
from korch.resources.kinds import DEPLOYMENT
from korch.resources.pod import EnvVar
from korch.resources.shortform import is_short_form, load_apps
from korch.resources.templates import template_hash
from korch.resources.validation import problems_of
from korch.resources.yamltree import load_trees

FULL = """\
name: web
image: registry.lab/web:1.4
replicas: 3
ports: ["8080:80", 443, 53:53/udp]
entrypoint: [/bin/web]
command: [serve, --verbose]
env: {LOG_LEVEL: info, DEBUG: yes, VERSION: 1.10, DAY: 2024-01-01, EMPTY: ""}
secrets: [DB_PASSWORD]
volumes: ["data:/var/lib/web", "/srv/x:/x:ro", /cache]
resources: {cpu: 250m, memory: 64Mi}
health: {http: /healthz, interval: 5s, timeout: 1, restart: true}
constraints: {zone: rack-1, disk: [ssd, nvme], korch.dev/gpu: 1}
spread: zone
stop_grace: 1m
user: 1000:1000
workdir: /srv
read_only: true
labels: {team: red}
annotations: {note: "a: b"}
"""


def read(text: str) -> App:
    ((app, _),) = load_apps(text, "korch.yml")
    return app


def deployment(text: str, **options):
    return expand(read(text), **options).deployment


def container(text: str, **options):
    return deployment(text, **options).spec.template.spec.containers[0]


MINIMAL = "name: web\nimage: web:1\n"


def test_every_key_is_read():
    app = read(FULL)
    assert app == App(
        name="web",
        image="registry.lab/web:1.4",
        replicas=3,
        ports=(Port(80, 8080), Port(443), Port(53, 53, "UDP")),
        entrypoint=("/bin/web",),
        command=("serve", "--verbose"),
        env={"LOG_LEVEL": "info", "DEBUG": "yes", "VERSION": "1.10", "DAY": "2024-01-01", "EMPTY": ""},
        secrets=("DB_PASSWORD",),
        mounts=(Mount("/var/lib/web", "data"), Mount("/x", "/srv/x", True), Mount("/cache")),
        cpu="250m",
        memory="64Mi",
        health=Health(http="/healthz", interval_s=5, timeout_s=1, restart=True),
        constraints={"zone": ("rack-1",), "disk": ("ssd", "nvme"), "korch.dev/gpu": ("1",)},
        spread=("zone",),
        stop_grace_s=60,
        user="1000:1000",
        workdir="/srv",
        read_only=True,
        labels={"team": "red"},
        annotations={"note": "a: b"},
    )


def test_the_expansion_is_legal_and_has_all_of_it():
    made = expand(read(FULL), values={"DB_PASSWORD": "x\ny ü"}, token="t1").deployment
    assert problems_of(with_defaults(made)) == []
    spec = made.spec.template.spec
    first = spec.containers[0]
    assert (first.command, first.args) == (("/bin/web",), ("serve", "--verbose"))
    assert [(p.container_port, p.host_port, p.protocol) for p in first.ports] == [
        (80, 8080, "TCP"),
        (53, 53, "UDP"),
        (443, 0, "TCP"),
    ]
    assert made.spec.template.metadata.annotations == {"korch.dev/publish": "443/tcp"}
    assert first.resources.requests == {"cpu": "250m", "memory": "64Mi"}
    assert first.resources.limits == {"memory": "64Mi"}
    assert [(m.mount_path, m.read_only) for m in first.volume_mounts] == [
        ("/var/lib/web", None),
        ("/x", True),
        ("/cache", None),
    ]
    assert spec.volumes[0].csi.volume_attributes == {"name": "data"}
    assert spec.volumes[1].host_path.path == "/srv/x"
    assert spec.volumes[2].empty_dir is not None
    assert spec.node_selector == {"topology.kubernetes.io/zone": "rack-1", "korch.dev/gpu": "1"}
    required = spec.affinity.node_affinity.required_during_scheduling_ignored_during_execution
    (requirement,) = required.node_selector_terms[0].match_expressions
    assert (requirement.key, requirement.values) == ("disk", ("ssd", "nvme"))
    assert spec.topology_spread_constraints[0].topology_key == "topology.kubernetes.io/zone"
    assert spec.termination_grace_period_seconds == 60
    assert first.security_context.run_as_user == 1000
    assert first.security_context.read_only_root_filesystem is True
    probe = first.readiness_probe
    assert (probe.http_get.port, probe.http_get.path, probe.period_seconds, probe.timeout_seconds) == (
        80,
        "/healthz",
        5,
        1,
    )
    assert first.liveness_probe.initial_delay_seconds == 30


def test_an_expansion_is_marked_and_rolls_new_before_old():
    made = deployment(MINIMAL)
    assert made.metadata.annotations == {"korch.dev/auto-rollback": "true"}
    assert made.metadata.labels == {"app": "web", "app.kubernetes.io/managed-by": "korch"}
    assert made.spec.selector.match_labels == {"app": "web"}
    assert made.spec.strategy.rolling_update.max_surge == 1
    assert made.spec.strategy.rolling_update.max_unavailable == 0
    assert deployment(MINIMAL + "update: recreate").spec.strategy.type == "Recreate"


def test_an_expansion_survives_the_wire():
    made = deployment(FULL, values={"DB_PASSWORD": "x"}, token="t")
    again = from_dict(DEPLOYMENT, to_dict(made))
    assert again == made
    assert template_hash(again.spec.template) == template_hash(made.spec.template)


def test_what_is_no_key_of_the_short_form_is_told_with_its_line():
    with pytest.raises(InvalidError) as caught:
        read("name: Web\nimag: x\nreplicas: -1\nports: [0, '80:80:80']\ncommand: serve\nenv: {1A: x, B: }\n")
    assert str(caught.value).splitlines()[1:] == [
        '  korch.yml:1: name: "Web" is not a DNS label (a-z, 0-9 and "-", not at the ends; at most 63)',
        '  korch.yml:2: "imag" is not a key of korch.yml; did you mean "image"?',
        '  korch.yml:3: replicas: must be a whole number, not "-1"',
        "  korch.yml:4: ports: 0 is not a port (1-65535)",
        '  korch.yml:4: ports: "80:80:80" is not a port '
        "(Write NODEPORT:PORT or PORT, maybe with /udp: 8080:80, 80, 53:53/udp.)",
        "  korch.yml:5: command: must be a list of words, such as [serve, --verbose], not text",
        '  korch.yml:6: env: "1A" is not a name for a variable (letters, digits and "_", no digit first)',
        '  korch.yml:6: env.B has no value; write "" for an empty one',
        "  korch.yml:1: image is missing",
    ]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        pytest.param("resources: {cpu: 1x}", 'resources.cpu: "1x" is not a quantity', id="quantity"),
        pytest.param(
            "resources: {mem: 5}", '"resources.mem" is not a key of korch.yml; did you mean "memory"', id="deep key"
        ),
        pytest.param("resources: 5", "resources must be a mapping of keys, not a number", id="no mapping"),
        pytest.param("health: {http: /, tcp: 5}", "exactly one of http, tcp and exec", id="two checks"),
        pytest.param("health: {interval: 5}", "exactly one of http, tcp and exec", id="no check"),
        pytest.param("health: {tcp: 70000}", r"70000 is not a port", id="check's port"),
        pytest.param("health: {tcp: 80, interval: soon}", '"soon" is not a duration', id="duration"),
        pytest.param("volumes: ['./x:/y']", "the path is one of the node", id="relative path"),
        pytest.param("volumes: [data:x]", '"data:x" is not a volume', id="relative target"),
        pytest.param("volumes: ['a/b:/x']", '"a/b" is not a name for a volume', id="volume's name"),
        pytest.param("replicas: two", 'must be a whole number, not "two"', id="replicas"),
        pytest.param("read_only: 1", 'must be true or false, not "1"', id="flag"),
        pytest.param("pull: sometimes", '"sometimes" is not one of always, missing, never', id="choice"),
        pytest.param("env: [A=b]", "must be a mapping, such as {NAME: value}, not a list", id="env as a list"),
        pytest.param("secrets: [A-B]", '"A-B" is not a name for a variable', id="secret's name"),
        pytest.param("replicas:", "replicas has no value", id="no value"),
        pytest.param("name: b", '"name" stands here a second time', id="twice"),
        pytest.param("namespace: a.b", '"a.b" is not a DNS label', id="namespace"),
    ],
)
def test_mistakes(lines, message):
    with pytest.raises(InvalidError, match=message) as caught:
        read(MINIMAL + lines)
    assert str(caught.value).startswith("korch.yml:3: ")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        pytest.param("health: {http: /}", "health.http needs a port", id="no port"),
        pytest.param("labels: {app: x}", 'the label "app" is the app\'s name', id="label"),
        pytest.param("env: {A: x}\nsecrets: [A]", '"A" is in env and in secrets', id="both"),
        pytest.param("user: web", 'user "web" is not a number', id="user's name"),
        pytest.param("constraints: {'a b': c}", '"a b" is not a label key', id="constraint"),
        pytest.param("resources: {memory: 1Ki}", "less than engines accept", id="memory"),
        pytest.param("ports: ['80:80', '80:81']", "node port 80/TCP is given 2 times", id="node port"),
        pytest.param("secrets: [A, B]", "no value for secret A, B", id="secrets"),
    ],
)
def test_mistakes_that_the_expansion_finds(lines, message):
    with pytest.raises(InvalidError, match=message):
        expand(read(MINIMAL + lines), where="korch.yml:1", token="t")


def test_an_empty_file_says_what_is_needed():
    with pytest.raises(InvalidError, match=r"korch\.yml: is empty; name and image are needed"):
        load_apps("# nothing\n", "korch.yml")


def test_several_apps_in_a_file():
    apps = load_apps("name: a\nimage: a\n---\nname: b\nimage: b\n", "f.yml")
    assert [(app.name, where) for app, where in apps] == [("a", "f.yml:1"), ("b", "f.yml:4")]


@pytest.mark.parametrize(
    ("text", "short"),
    [("name: a", True), ("image: b", True), ("apiVersion: v1", False), ("kind: Pod\nname: x", False), ("[]", False)],
)
def test_short_form_is_told_from_manifests(text, short):
    (tree,) = load_trees(text, "f")
    assert is_short_form(tree) is short


@pytest.mark.parametrize(
    ("text", "port"),
    [("80", Port(80)), ("8080:80", Port(80, 8080)), ("53:53/udp", Port(53, 53, "UDP")), ("1/tcp", Port(1))],
)
def test_ports(text, port):
    assert parse_port(text) == port


@pytest.mark.parametrize("text", ["", "a", "0:80", "80:0", "70000", "1.2.3.4:80:80", "80/sctp", "-1", " 80", "８０"])
def test_no_ports(text):
    with pytest.raises(InvalidError):
        parse_port(text)


@pytest.mark.parametrize(
    ("text", "mount"),
    [
        ("data:/x", Mount("/x", "data")),
        ("/a:/b", Mount("/b", "/a")),
        ("/a:/b:ro", Mount("/b", "/a", True)),
        ("data:/x:rw", Mount("/x", "data")),
        ("/cache", Mount("/cache")),
        ("/cache:ro", Mount("/cache", "", True)),
    ],
)
def test_volumes(text, mount):
    assert parse_mount(text) == mount


@pytest.mark.parametrize("text", ["", "data", "a:b", ":/x", "a:/x:z", "~/x:/y", "/a/../b:/x", "a b:/x", "/a:/b:/c:ro"])
def test_no_volumes(text):
    with pytest.raises(InvalidError):
        parse_mount(text)


@pytest.mark.parametrize(("text", "seconds"), [("5", 5), (7, 7), ("30s", 30), ("5m", 300), ("1h", 3600), ("1m30s", 90)])
def test_durations(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "-1", "1.5s", "1d", "5 m"])
def test_no_durations(text):
    with pytest.raises(InvalidError):
        parse_duration(text)


@given(text=st.text(alphabet="$()AB x'\"", max_size=12))
def test_values_reach_the_container_as_written(text):
    """The short form replaces nothing, whatever `$(NAME)` and `$$` mean in a manifest."""
    made = expand(App(name="web", image="web:1", env={"A": "a", "X": text}, command=(text,))).deployment
    first = made.spec.template.spec.containers[0]
    (value,) = [env.value for env in first.env if env.name == "X"]
    assert [as_kubernetes_reads(stored) for stored in (value, first.args[0])] == [text, text]


def as_kubernetes_reads(text: str) -> str:
    """`$$` is `$`, and every `$(NAME)` is replaced: the rule of Kubernetes for env, command and args."""
    return re.sub(r"\$\$|\$\([^()]*\)", lambda found: "$" if found[0] == "$$" else "REPLACED", text)


# --- secrets ---

WITH_SECRETS = MINIMAL + "secrets: [A, B]\n"


def test_secrets_are_kept_whole_and_stand_nowhere_else():
    value = "line 1\nline 2\n'$(x)' ü €"
    made = expand(read(WITH_SECRETS), values={"A": value, "B": "b", "OTHER": "no"}, token="t1")
    assert {key: base64.b64decode(text).decode() for key, text in made.secret.data.items()} == {"A": value, "B": "b"}
    assert made.secret.immutable
    assert made.secret.metadata.name == "web-env-t1"
    env = made.deployment.spec.template.spec.containers[0].env
    assert [(e.name, e.value, e.value_from.secret_key_ref.name, e.value_from.secret_key_ref.key) for e in env] == [
        ("A", "", "web-env-t1", "A"),
        ("B", "", "web-env-t1", "B"),
    ]
    assert "line 1" not in str(to_dict(made.deployment))
    assert [type(obj).__name__ for obj in made.objects] == ["Secret", "Deployment"]


def recorded(expansion, time: str = "2026-01-01T00:00:00Z"):
    return with_meta(expansion.secret, namespace="default", creation_timestamp=time)


def test_the_same_values_use_the_same_secret_and_change_nothing():
    first = expand(read(WITH_SECRETS), values={"A": "a", "B": "b"}, token="t1")
    again = expand(read(WITH_SECRETS), values={"A": "a", "B": "b"}, known=[recorded(first)], token="t2")
    assert again.deployment == first.deployment
    assert again.secret == recorded(first)


def test_another_value_is_another_secret_and_another_template():
    first = expand(read(WITH_SECRETS), values={"A": "a", "B": "b"}, token="t1")
    second = expand(read(WITH_SECRETS), values={"A": "a", "B": "new"}, known=[recorded(first)], token="t2")
    assert second.secret.metadata.name == "web-env-t2"
    assert template_hash(first.deployment.spec.template) != template_hash(second.deployment.spec.template)


def test_values_that_are_not_given_again_are_taken_from_the_newest_secret():
    first = expand(read(WITH_SECRETS), values={"A": "a", "B": "old"}, token="t1")
    second = expand(read(WITH_SECRETS), values={"A": "a", "B": "new"}, token="t2")
    known = [recorded(second, "2026-02-01T00:00:00Z"), recorded(first)]
    third = expand(read(WITH_SECRETS), values={"A": "a"}, known=known, token="t3")
    assert third.secret == known[0]


def test_secrets_of_other_apps_are_not_used():
    other = expand(read(WITH_SECRETS.replace("name: web", "name: db")), values={"A": "a", "B": "b"}, token="t1")
    with pytest.raises(InvalidError, match="no value for secret A, B"):
        expand(read(WITH_SECRETS), known=[recorded(other)], token="t2")


def test_only_secrets_that_no_revision_needs_are_unused():
    first = expand(read(WITH_SECRETS), values={"A": "a", "B": "b"}, token="t1")
    second = expand(read(WITH_SECRETS), values={"A": "a", "B": "new"}, token="t2")
    secrets = [recorded(first), recorded(second)]
    now, before = (with_meta(e.deployment, namespace="default") for e in (second, first))
    assert unused_secrets(secrets, [now]) == (secrets[0],)
    assert unused_secrets(secrets, [now, before]) == ()
    by_hand = with_meta(secrets[0], labels={})
    assert unused_secrets([by_hand], []) == ()


def test_env_is_in_a_stable_order():
    assert container(MINIMAL + "env: {B: b, A: a}").env == (EnvVar(name="A", value="a"), EnvVar(name="B", value="b"))
