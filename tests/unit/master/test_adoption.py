"""What nodes hold becomes objects again: same pods, same sets, nothing to roll afterwards."""

from dataclasses import replace as with_fields

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from korch.client.base import ClusterFound
from korch.controllers.daemonset import daemon_name, plan_daemons
from korch.controllers.replicaset import pod_from
from korch.controllers.rollout import current_set, plan_rollout, revision_of
from korch.engines.names import SANDBOX, Identity
from korch.engines.observed import ObservedContainer
from korch.errors import ForbiddenError, HostUnreachableError, InvalidError, NotFoundError
from korch.master.adopt import grouped
from korch.master.adoption import AdoptionPlan, Known, plan_adoption
from korch.master.choosing import but_not_all_answer, choose
from korch.master.cluster import ClusterRecord
from korch.master.finds import NodeFind, orphans_of, read_wish
from korch.nodes.parcels import StoredWish
from korch.nodes.podstatus import Readiness, Sight, observed_status
from korch.nodes.records import record_of
from korch.objects.prepare import for_create
from korch.resources.annotations import COMPLETED
from korch.resources.codec import encode, with_meta
from korch.resources.defaults import with_defaults
from korch.resources.meta import ObjectMeta
from korch.resources.misc import Secret
from korch.resources.pod import Container, EnvVar, EnvVarSource, Pod, PodSpec, SecretKeySelector
from korch.resources.templates import TEMPLATE_HASH_LABEL, spec_hash, template_hash
from korch.resources.workload import Deployment, ReplicaSet
from tests.unit.controllers.cluster import deployment
from tests.unit.controllers.test_daemonset import daemonset, node

CLUSTER = "c1"
NOW = 1_000_000.0


def wish_of(image: str = "web:1", *, replicas: int = 3, revision: int = 7, env: tuple[EnvVar, ...] = ()) -> Deployment:
    """A deployment as a node keeps it: as stored, with the revision it was read at."""
    made = deployment(image, replicas)
    spec = made.spec.template.spec
    spec = replace(spec, containers=(replace(spec.containers[0], env=env),))
    made = replace(made, spec=replace(made.spec, template=replace(made.spec.template, spec=spec)))
    stored = for_create(made, name="web", uid="0d2b1b3c-0000-4000-8000-000000000001", now=NOW)
    return with_meta(stored, resource_version=str(revision))


def container(wish: Deployment, number: int, node: str = "n1", *, state: str = "running") -> ObservedContainer:
    """The container of one replica, as its node's engine shows it."""
    hashed = template_hash(wish.spec.template)
    pod = f"web-{hashed}-{number:05}"
    hash_ = spec_hash(wish.spec.template.spec)
    who = Identity(CLUSTER, "default", pod, f"uid-{hashed}-{number}", "web", "web", 1, hash_)
    return ObservedContainer(
        id=f"id-{hashed}-{number}",
        name=f"korch_{node}_{pod}",
        image=wish.spec.template.spec.containers[0].image,
        image_id="sha256:" + "a" * 64,
        state=state,  # type: ignore[arg-type]
        identity=who,
        started_at=NOW - 100,
        running_s=100.0 if state == "running" else None,
        restart_policy="unless-stopped",
    )


def settled(wish: Deployment, count: int = 3, nodes: int = 3) -> list[NodeFind]:
    """`count` replicas of a wish over so many nodes."""
    names = [f"n{index}" for index in range(1, nodes + 1)]
    by_node: dict[str, list[ObservedContainer]] = {name: [] for name in names}
    for number in range(count):
        by_node[names[number % nodes]].append(container(wish, number, names[number % nodes]))
    return [NodeFind(name, tuple(found), (wish,) if found else ()) for name, found in by_node.items()]


def written(plan: AdoptionPlan, known: Known) -> Known:
    """The store after the plan was carried out."""
    statuses = {
        taken.pod.metadata.uid: observed_status(
            taken.pod, {"web": Sight(taken.seen, Readiness(passing=True))}, now=NOW - 100, host_ip="10.0.0.1"
        )
        for taken in plan.pods
    }
    objects = [obj for group in grouped(plan, statuses, NOW) for obj in group]
    changed = {found.metadata.uid: found for found in (*plan.replace, *plan.resize)}
    gone = {pod.metadata.uid for pod in plan.drop}
    return Known(
        deployments=(
            *(changed.get(found.metadata.uid, found) for found in known.deployments),
            *(obj for obj in objects if isinstance(obj, Deployment)),
        ),
        sets=(
            *(changed.get(found.metadata.uid, found) for found in known.sets),
            *(obj for obj in objects if isinstance(obj, ReplicaSet)),
        ),
        pods=(
            *(pod for pod in known.pods if pod.metadata.uid not in gone),
            *(obj for obj in objects if isinstance(obj, Pod)),
        ),
        secrets=known.secrets,
        ended=known.ended | gone,
    )


def steps_left(known: Known) -> tuple[object, ...]:
    """What the deployment controller would do now."""
    (found,) = known.deployments
    sets = [one for one in known.sets if one.metadata.owner_references[0].uid == found.metadata.uid]
    pods = {
        one.metadata.name: [pod for pod in known.pods if pod.metadata.owner_references[0].uid == one.metadata.uid]
        for one in sets
    }
    plan = plan_rollout(found, sets, pods, NOW)
    return (plan.create_revision, plan.scale, plan.remove, plan.give_up, plan.go_back_to, plan.completed)


NOTHING = (0, (), (), "", "", "")


def test_a_settled_workload_comes_back_and_nothing_is_left_to_do() -> None:
    wish = wish_of()
    plan = plan_adoption(settled(wish), Known())
    assert plan.deployments == (wish,)
    assert {taken.pod.metadata.uid for taken in plan.pods} == {container(wish, n).identity.uid for n in range(3)}  # type: ignore[union-attr]
    assert plan.notes == ()
    (replicaset,) = plan.sets
    assert replicaset.metadata.labels[TEMPLATE_HASH_LABEL] == template_hash(wish.spec.template)
    assert current_set(wish, plan.sets) == replicaset
    known = written(plan, Known())
    assert steps_left(known) == NOTHING
    assert known.deployments[0].status.available_replicas == 3
    assert known.sets[0].status.ready_replicas == 3


def test_a_pod_that_is_taken_in_would_be_made_the_same_way() -> None:
    """Its spec hash is that of the container's label: a restart finds the very container."""
    wish = wish_of()
    plan = plan_adoption(settled(wish), Known())
    pod = plan.pods[0].pod
    assert plan.pods[0].seen.identity is not None
    assert spec_hash(with_defaults(pod).spec) == plan.pods[0].seen.identity.spec_hash
    made = pod_from(plan.sets[0], pod.metadata.name)
    assert (made.metadata.labels, made.metadata.annotations) == (pod.metadata.labels, pod.metadata.annotations)


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(0, 6),
    wished=st.integers(0, 5),
    nodes=st.integers(1, 4),
    older=st.integers(0, 3),
    order=st.randoms(use_true_random=False),
)
def test_adopting_again_finds_nothing_and_order_is_irrelevant(
    count: int, wished: int, nodes: int, older: int, order: object
) -> None:
    new, old = wish_of("web:2", replicas=wished, revision=9), wish_of("web:1", replicas=wished, revision=3)
    finds = settled(new, count, nodes)
    finds += [NodeFind("old", tuple(container(old, n, "old") for n in range(older)), (old,) if older else ())]
    plan = plan_adoption(finds, Known())
    shuffled = list(finds)
    order.shuffle(shuffled)  # type: ignore[attr-defined]
    assert plan_adoption(shuffled, Known()) == plan
    assert len(plan.pods) == count + older
    known = written(plan, Known())
    again = plan_adoption(finds, known)
    assert again == AdoptionPlan(notes=again.notes)


def test_the_newest_wish_counts_and_an_older_one_explains_the_older_pods() -> None:
    """A rollout that was under way goes on: the new set has what it has, the old one can be gone back to."""
    new, old = wish_of("web:2", revision=9), wish_of("web:1", revision=3)
    finds = [
        NodeFind("n1", (container(new, 0), container(old, 0)), (new,)),
        NodeFind("n2", (container(old, 1, "n2"),), (old,)),
        NodeFind("n3", (container(old, 2, "n3"),), (old,)),
    ]
    plan = plan_adoption(finds, Known())
    assert plan.deployments == (new,)
    sizes = {found.metadata.labels[TEMPLATE_HASH_LABEL]: found for found in plan.sets}
    first, second = sizes[template_hash(old.spec.template)], sizes[template_hash(new.spec.template)]
    assert (first.spec.replicas, second.spec.replicas) == (3, 1)
    assert revision_of(first) < revision_of(second)
    assert COMPLETED in first.metadata.annotations
    assert COMPLETED not in second.metadata.annotations
    assert current_set(new, plan.sets) == second


def test_replicas_whose_settings_no_node_keeps_are_replaced_by_the_next_rollout() -> None:
    wish, lost = wish_of("web:2"), wish_of("web:1")
    finds = [NodeFind("n1", (container(lost, 0), container(wish, 0)), (wish,))]
    plan = plan_adoption(finds, Known())
    guessed = next(
        found for found in plan.sets if found.metadata.labels[TEMPLATE_HASH_LABEL] != template_hash(wish.spec.template)
    )
    assert COMPLETED not in guessed.metadata.annotations, "nothing to go back to"
    assert any("no node keeps the settings of 1 replica" in note for note in plan.notes)


def test_the_same_image_with_other_settings_is_not_taken_for_the_current_revision() -> None:
    wish = wish_of("web:1")
    other = wish_of("web:1", env=(EnvVar(name="A", value="1"),))
    plan = plan_adoption([NodeFind("n1", (container(other, 0),), (wish,))], Known())
    assert current_set(wish, plan.sets) is None


def test_containers_without_any_wish_are_kept_as_they_run() -> None:
    wish = wish_of()
    plan = plan_adoption([NodeFind("n1", (container(wish, 0),))], Known())
    (taken,) = plan.pods
    assert taken.pod.metadata.owner_references == ()
    assert taken.pod.spec.node_name == "n1"
    assert any("no node keeps its wish" in note for note in plan.notes)


def test_a_pod_of_its_own_comes_back_by_its_own_wish() -> None:
    spec = PodSpec(containers=(Container(name="job", image="job:1"),), restart_policy="Never")
    single = for_create(
        Pod(metadata=ObjectMeta(name="job", namespace="default"), spec=spec), name="job", uid="u9", now=NOW
    )
    kept = with_meta(replace(single, spec=replace(single.spec, node_name="n1")), resource_version="4")
    who = Identity(CLUSTER, "default", "job", "u9", "job", "job")
    seen = with_fields(container(wish_of(), 0), identity=who)
    plan = plan_adoption([NodeFind("n2", (seen,), (kept,))], Known())
    assert [taken.pod.spec for taken in plan.pods] == [replace(single.spec, node_name="n2")]
    assert plan.notes == ()


def test_a_set_of_its_own_comes_back_by_its_own_wish() -> None:
    wish = wish_of()
    first = plan_adoption(settled(wish, 1, 1), Known()).sets[0]
    own = with_meta(first, owner_references=(), name="batch", uid="u-batch", resource_version="4")
    who = Identity(CLUSTER, "default", "batch-abcde", "u1", "web", "batch")
    plan = plan_adoption([NodeFind("n1", (with_fields(container(wish, 0), identity=who),), (own,))], Known())
    assert [found.metadata.name for found in plan.sets] == ["batch"]
    assert plan.pods[0].pod.metadata.owner_references[0].uid == "u-batch"


def test_what_the_store_knows_or_has_ended_is_no_orphan() -> None:
    wish = wish_of()
    finds = settled(wish)
    known = written(plan_adoption(finds, Known()), Known())
    assert orphans_of(finds, {pod.metadata.uid for pod in known.pods}) == []
    ended = frozenset(seen.identity.uid for find in finds for seen in find.containers if seen.identity)
    assert plan_adoption(finds, Known(ended=ended)).pods == ()


def test_an_orphan_joins_its_set_and_the_surplus_is_told() -> None:
    wish = wish_of()
    known = written(plan_adoption(settled(wish), Known()), Known())
    finds = [*settled(wish), NodeFind("n4", (container(wish, 77, "n4"),), (wish,))]
    plan = plan_adoption(finds, known)
    assert plan.sets == plan.deployments == plan.replace == ()
    assert [taken.pod.metadata.owner_references[0].uid for taken in plan.pods] == [known.sets[0].metadata.uid]
    assert any("4 replicas run and 3 are wished for" in note for note in plan.notes)


def test_after_an_old_backup_the_newer_wish_of_the_nodes_counts() -> None:
    old, new = wish_of("web:1", revision=3), wish_of("web:2", revision=9)
    known = written(plan_adoption(settled(old), Known()), Known())
    plan = plan_adoption(settled(new), known)
    assert [found.spec for found in plan.replace] == [new.spec]
    assert len(plan.drop) == 3, "of the old replicas nothing is left on their nodes"
    after = written(plan, known)
    assert {pod.metadata.uid for pod in after.pods} == {taken.pod.metadata.uid for taken in plan.pods}
    assert steps_left(after) == NOTHING


def test_a_wish_older_than_the_state_changes_nothing() -> None:
    old, new = wish_of("web:1", revision=3), wish_of("web:2", revision=9)
    known = written(plan_adoption(settled(new), Known()), Known())
    finds = [*settled(new), NodeFind("n9", (), (old,))]
    assert plan_adoption(finds, known) == AdoptionPlan()


def test_pods_of_nodes_that_did_not_answer_are_left_alone() -> None:
    wish = wish_of()
    known = written(plan_adoption(settled(wish), Known()), Known())
    reached = [NodeFind("n1", (container(wish, 77),), (wish,))]
    assert {pod.spec.node_name for pod in plan_adoption(reached, known).drop} == {"n1"}


def test_of_two_containers_with_one_uid_the_running_one_is_the_pod() -> None:
    wish = wish_of(replicas=1)
    finds = [
        NodeFind("n1", (container(wish, 0, "n1", state="exited"),), (wish,)),
        NodeFind("n2", (container(wish, 0, "n2"),), (wish,)),
    ]
    assert [taken.pod.spec.node_name for taken in plan_adoption(finds, Known()).pods] == ["n2"]


def test_missing_secrets_are_named_with_the_way_to_give_them() -> None:
    source = EnvVarSource(secret_key_ref=SecretKeySelector(name="web-env-1", key="DB_PASSWORD"))
    wish = wish_of(env=(EnvVar(name="DB_PASSWORD", value_from=source),))
    (note,) = plan_adoption(settled(wish), Known()).notes
    assert "web-env-1 (DB_PASSWORD)" in note
    assert "--env-file" in note
    secret = Secret(metadata=ObjectMeta(name="web-env-1", namespace="default"))
    assert plan_adoption(settled(wish), Known(secrets=(secret,))).notes == ()


def test_a_wish_without_containers_is_taken_in_and_told() -> None:
    (note,) = plan_adoption([NodeFind("n1", (), (wish_of(),))], Known()).notes
    assert "none of its containers is there" in note


# --- wishes as files ---


def test_a_wish_is_read_back_as_it_was_kept() -> None:
    wish = wish_of()
    record = record_of(wish)
    assert read_wish(StoredWish(record.file, record.content)) == wish


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("default_Deployment%2Fweb", b"{"),
        ("default_Deployment%2Fweb", b'{"kind": "Secret", "apiVersion": "v1"}'),
        ("default_Deployment%2Fother", encode(wish_of())),
        ("default_Deployment%2Fweb", encode(with_meta(wish_of(), resource_version=""))),
        ("default_Deployment%2Fweb", encode(with_meta(wish_of(), uid=""))),
        ("default_Deployment%2Fweb", encode(replace(wish_of(), spec=replace(wish_of().spec, replicas=-1)))),
    ],
    ids=["cut", "another kind", "another name", "no revision", "no uid", "not valid"],
)
def test_a_wish_that_is_not_whole_is_refused(file: str, content: bytes) -> None:
    with pytest.raises(InvalidError, match=r"default_Deployment|replicas"):
        read_wish(StoredWish(file, content))


# --- which cluster ---


RECORD = ClusterRecord(id="own", name="lab", created="", master_host="me@here")


def found(id_: str, *, containers: int = 0, workloads: tuple[str, ...] = ()) -> ClusterFound:
    return ClusterFound(id_, f"name-{id_}", "boss@there", ("n1",), containers, workloads)


def test_the_only_cluster_with_something_is_chosen() -> None:
    clusters = (found("empty"), found("full", containers=2))
    assert choose(clusters, RECORD, "", holds_work=False).id == "full"


def test_several_clusters_must_be_chosen_from() -> None:
    with pytest.raises(InvalidError) as caught:
        choose((found("a", containers=1), found("b", workloads=("x",))), RECORD, "", holds_work=False)
    assert "--cluster-id" in caught.value.hint
    assert "boss@there" in caught.value.hint
    assert choose((found("a", containers=1), found("b", workloads=("x",))), RECORD, "b", holds_work=False).id == "b"


def test_a_state_with_workloads_is_never_overwritten() -> None:
    with pytest.raises(ForbiddenError):
        choose((found("own"), found("b", containers=1)), RECORD, "b", holds_work=True)
    assert choose((found("own"), found("b", containers=1)), RECORD, "", holds_work=True).id == "own"
    assert choose((found("b", containers=1),), RECORD, "", holds_work=True).id == "own"


def test_nothing_to_adopt() -> None:
    with pytest.raises(NotFoundError):
        choose((), RECORD, "", holds_work=False)
    with pytest.raises(NotFoundError):
        choose((found("a"),), RECORD, "zzz", holds_work=False)
    assert choose((found("own"),), RECORD, "", holds_work=False).id == "own"


def test_what_was_not_found_may_be_on_a_node_that_does_not_answer() -> None:
    error = NotFoundError("nothing there", hint="look again")
    assert but_not_all_answer(error, {}) is error
    silent = HostUnreachableError("n2: no answer", host="n2", hint="Is it on?")
    told = but_not_all_answer(error, {"n2": silent, "n3": HostUnreachableError("refused", host="n3")})
    assert str(told) == "nothing there, but not all could be looked at: n2: no answer; n3: refused"
    assert told.hint == "Is it on?"


def test_a_daemon_set_comes_back_with_its_pods_and_nothing_is_rolled_afterwards() -> None:
    stored = for_create(daemonset(), name="log", uid="0d2b1b3c-0000-4000-8000-000000000002", now=NOW)
    wish = with_meta(stored, resource_version="7")
    nodes = [node(name) for name in ("n1", "n2", "n3")]
    hash_ = spec_hash(wish.spec.template.spec)

    def runs_on(name: str, found: str) -> NodeFind:
        who = Identity(CLUSTER, "default", daemon_name(wish, name), f"uid-{name}", "log", "log", 1, found)
        seen = with_fields(container(wish_of(), 1), id=f"id-{name}", identity=who)
        return NodeFind(name, (seen,), (wish,))

    plan = plan_adoption([runs_on("n1", hash_), runs_on("n2", hash_), runs_on("n3", "another")], Known())
    assert read_wish(StoredWish(record_of(wish).file, record_of(wish).content)).metadata.uid == wish.metadata.uid
    assert [found.metadata.name for found in plan.daemons] == ["log"]
    assert plan.notes == ()
    (group,) = grouped(plan, {}, NOW)
    assert [type(obj).__name__ for obj in group] == ["DaemonSet", "Pod", "Pod", "Pod"]
    pods = [
        replace(
            one.pod,
            status=observed_status(
                one.pod, {"web": Sight(one.seen, Readiness(passing=True))}, now=NOW - 100, host_ip=""
            ),
        )
        for one in plan.pods
    ]
    after = plan_daemons(plan.daemons[0], nodes, pods, NOW)
    assert after.create == ()
    assert [pod.spec.node_name for pod in after.delete] == ["n3"], "only what is of another template"
    again = plan_adoption([runs_on("n1", hash_)], Known(daemons=plan.daemons, pods=tuple(pods)))
    assert again == AdoptionPlan(notes=again.notes)


# --- several containers ---


def of_two(wish: Deployment) -> Deployment:
    spec = wish.spec.template.spec
    spec = replace(spec, containers=(*spec.containers, Container(name="log", image="log:1")))
    return replace(wish, spec=replace(wish.spec, template=replace(wish.spec.template, spec=spec)))


def pod_of_two(wish: Deployment, number: int, node: str, *names: str) -> tuple[ObservedContainer, ...]:
    """The containers of one replica."""
    one = container(wish, number, node)
    assert one.identity is not None
    return tuple(
        with_fields(
            one, id=f"{one.id}-{name}", name=f"{one.name}_{name}", identity=with_fields(one.identity, container=name)
        )
        for name in names
    )


def test_containers_of_one_pod_are_one_pod() -> None:
    wish = of_two(wish_of(replicas=2))
    finds = [
        NodeFind("n1", pod_of_two(wish, 1, "n1", SANDBOX, "web", "log"), (wish,)),
        NodeFind("n2", pod_of_two(wish, 2, "n2", SANDBOX), (wish,)),  # killed half way
    ]
    plan = plan_adoption(finds, Known())
    assert sorted((len(taken.every), taken.pod.spec.node_name) for taken in plan.pods) == [(1, "n2"), (3, "n1")]
    (whole,) = [taken for taken in plan.pods if taken.pod.spec.node_name == "n1"]
    assert whole.seen.identity is not None
    assert whole.seen.identity.container != SANDBOX
    assert plan.notes == ()
    known = written(plan, Known())
    again = plan_adoption(finds, known)
    assert again == AdoptionPlan(notes=again.notes)


def test_several_containers_without_a_wish_are_taken_in_as_they_run() -> None:
    wish = of_two(wish_of())
    found = pod_of_two(wish, 1, "n1", SANDBOX, "web", "log")
    begun = (with_fields(one, started_at=NOW - 90 + number) for number, one in enumerate(found))
    finds = [NodeFind("n1", tuple(reversed(tuple(begun))), ())]
    (taken,) = plan_adoption(finds, Known()).pods
    assert [one.name for one in taken.pod.spec.containers] == ["web", "log"]
    only = plan_adoption([NodeFind("n1", pod_of_two(wish, 1, "n1", SANDBOX), ())], Known())
    assert only.pods == ()
    assert "nothing of it is there but its network" in only.notes[0]
