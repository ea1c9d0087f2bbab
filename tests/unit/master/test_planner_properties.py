"""Adoption, taints and pruning as properties: in any order of input the same, and done once is done."""

import random
from dataclasses import replace as with_fields

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from korch.engines.images import ListedImage, prunable
from korch.engines.names import SANDBOX
from korch.engines.observed import ObservedContainer
from korch.master.adoption import Known, plan_adoption
from korch.master.finds import NodeFind
from korch.master.tainting import due_taint
from korch.resources.expand import REGISTRY_OF_LABEL, SECRETS_OF_LABEL, unused_secrets
from korch.resources.meta import ObjectMeta
from korch.resources.misc import Secret
from korch.resources.node import Taint
from korch.resources.pod import Container, EnvVar, EnvVarSource, Pod, PodSpec, SecretKeySelector, Toleration
from korch.resources.templates import secret_names
from korch.scheduler.taints import NOT_READY, UNREACHABLE
from tests.unit.master.test_adoption import container, settled, wish_of, written
from tests.unit.planners import DICE, mixed, mixed_keys, steady

# --- adoption ---


def mate(seen: ObservedContainer, name: str) -> ObservedContainer:
    """Another container of the same pod, started in the same moment."""
    assert seen.identity is not None
    return with_fields(
        seen, id=f"{seen.id}-{name}", name=f"{seen.name}_{name}", identity=with_fields(seen.identity, container=name)
    )


def stirred(finds: list[NodeFind], dice: random.Random) -> list[NodeFind]:
    return [
        replace(one, containers=tuple(mixed(one.containers, dice)), wishes=tuple(mixed(one.wishes, dice)))
        for one in mixed(finds, dice)
    ]


def stirred_known(known: Known, dice: random.Random) -> Known:
    return replace(
        known,
        deployments=tuple(mixed(known.deployments, dice)),
        sets=tuple(mixed(known.sets, dice)),
        pods=tuple(mixed(known.pods, dice)),
    )


@steady(60)
@given(
    count=st.integers(0, 5),
    older=st.integers(0, 3),
    mates=st.sets(st.sampled_from([SANDBOX, "log"])),
    lost=st.integers(0, 5),
    keeps=st.booleans(),
    dice=DICE,
)
def test_adoption_does_not_depend_on_the_order_of_what_nodes_and_store_hold(
    count: int, older: int, mates: set[str], lost: int, keeps: bool, dice: random.Random
) -> None:
    new, old = wish_of("web:2", revision=9), wish_of("web:1", revision=3)
    finds = settled(new, count, 3)
    finds += [NodeFind("old", tuple(container(old, n, "old") for n in range(older)), (old,) if older and keeps else ())]
    finds = [
        replace(
            one, containers=tuple(two for seen in one.containers for two in (seen, *(mate(seen, n) for n in mates)))
        )
        for one in finds
    ]
    first = plan_adoption(finds, Known())
    assert plan_adoption(stirred(finds, dice), Known()) == first
    known = written(first, Known())
    fewer = [replace(one, containers=one.containers[lost:]) for one in finds]  # containers went meanwhile
    more = [*fewer, NodeFind("n9", (container(new, 40, "n9"),), (new,))]
    plan = plan_adoption(more, known)
    assert plan_adoption(stirred(more, dice), stirred_known(known, dice)) == plan


# --- taints ---

TAINTS = st.builds(
    Taint,
    key=st.sampled_from(["a", "b", NOT_READY, UNREACHABLE]),
    effect=st.sampled_from(["NoExecute", "NoExecute", "NoExecute", "NoSchedule"]),
    value=st.sampled_from(["", "x"]),
)
TOLERATIONS = st.builds(
    Toleration,
    key=st.sampled_from(["a", "b", NOT_READY, ""]),
    operator=st.just("Exists"),
    toleration_seconds=st.sampled_from([None, 0, 10]),
)


@steady(300)
@given(st.dictionaries(TAINTS, st.sampled_from([0.0, 5.0, 20.0]), max_size=4), st.lists(TOLERATIONS, max_size=2), DICE)
def test_the_order_of_taints_does_not_decide_what_becomes_of_a_pod(
    since: dict[Taint, float], tolerations: list[Toleration], dice: random.Random
) -> None:
    pod = Pod(spec=PodSpec(containers=(Container(name="web"),), tolerations=tuple(tolerations)))
    due = due_taint(pod, since, 20.0)
    assert due_taint(pod, mixed_keys(since, dice), 20.0) == due
    each = [due_taint(pod, {taint: at}, 20.0) for taint, at in since.items()]
    assert due in each or (due is None and not since)
    assert (due is None) == (not any(each)), "a taint more makes nobody stay"


# --- pruning ---


def using(app: str, names: set[str]) -> object:
    made = wish_of(
        f"{app}:1",
        env=tuple(
            EnvVar(name=f"V{n}", value_from=EnvVarSource(secret_key_ref=SecretKeySelector(name=name, key="k")))
            for n, name in enumerate(sorted(names))
        ),
    )
    return replace(made, metadata=replace(made.metadata, name=app))


NAMES = st.sampled_from(["s1", "s2", "s3", "s4"])


@steady(100)
@given(
    secrets=st.dictionaries(NAMES, st.sampled_from([SECRETS_OF_LABEL, REGISTRY_OF_LABEL, "mine"])),
    elsewhere=st.sets(NAMES),
    apps=st.lists(st.sets(NAMES, max_size=2), max_size=3),
    dice=DICE,
)
def test_no_secret_goes_that_a_template_names_or_a_person_made(
    secrets: dict[str, str], elsewhere: set[str], apps: list[set[str]], dice: random.Random
) -> None:
    held = [
        Secret(metadata=ObjectMeta(name=name, namespace=namespace, labels={label: "app"}))
        for namespace, names in (("default", set(secrets)), ("other", elsewhere & set(secrets)))
        for name in sorted(names)
        for label in [secrets[name]]
    ]
    workloads = [using(f"app{number}", names) for number, names in enumerate(apps)]
    gone = unused_secrets(held, workloads)  # type: ignore[arg-type]
    stirred_up = unused_secrets(mixed(held, dice), mixed(workloads, dice))  # type: ignore[arg-type]
    assert {(one.metadata.namespace, one.metadata.name) for one in stirred_up} == {
        (one.metadata.namespace, one.metadata.name) for one in gone
    }
    named = {name for found in workloads for name in secret_names(found.spec.template.spec)}  # type: ignore[attr-defined]
    assert not any(one.metadata.namespace == "default" and one.metadata.name in named for one in gone)
    assert not any("mine" in one.metadata.labels for one in gone)
    left = [one for one in held if one not in gone]
    assert unused_secrets(left, workloads) == ()  # type: ignore[arg-type]
    used = [one for one in left if one.metadata.namespace == "default" and one.metadata.name in named]
    assert all("mine" in one.metadata.labels for one in left if one not in used), "what nobody names goes"


IMAGES = ["sha256:" + letter * 64 for letter in "abcd"]
TAGS = st.sets(st.sampled_from(["web:1", "web:2", "db:1", "reg.lab/web@sha256:" + "1" * 64]), max_size=2)


@steady(150)
@given(
    brought=st.lists(st.sampled_from(IMAGES)),
    held=st.dictionaries(st.sampled_from(IMAGES), TAGS),
    used=st.sets(st.sampled_from(IMAGES)),
    keep=st.sets(st.sampled_from(["web:1", "docker.io/library/web:2", "db:1", IMAGES[0]])),
    dice=DICE,
)
def test_no_image_goes_that_somebody_uses_wants_or_brought_himself(
    brought: list[str], held: dict[str, set[str]], used: set[str], keep: set[str], dice: random.Random
) -> None:
    images = [ListedImage(id_, tuple(sorted(names)), 1) for id_, names in held.items()]
    gone = prunable(brought, images, used, keep)
    stirred_names = [with_fields(one, names=tuple(mixed(one.names, dice))) for one in mixed(images, dice)]
    assert prunable(mixed(brought, dice), stirred_names, mixed(used, dice), mixed(keep, dice)) == gone
    assert not set(gone) & (used | keep)
    assert set(gone) <= set(brought) & set(held)
    wanted = {name.removeprefix("docker.io/library/") for name in keep}
    assert not any(held[id_] & wanted for id_ in gone)
    assert not any(len([name for name in held[id_] if "@" not in name]) > 1 for id_ in gone), "somebody named it too"
    assert prunable(brought, [one for one in images if one.id not in gone], used, keep) == ()
