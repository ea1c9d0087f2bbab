"""What is removed and what is never touched: surplus, orphans, other clusters' things, somebody else's things."""

from collections.abc import Mapping

import pytest

from tests.lab.faulty import Faulty, Seen
from tests.lab.korch_cli import Korch

pytestmark = pytest.mark.faults
AT_ONCE = ("--settle", "0")


def imitate(faulty: Faulty, node: str, name: str, labels: Mapping[str, str]) -> None:
    """A running container with these labels."""
    words = [word for key, value in labels.items() for word in ("--label", f"{key}={value}")]
    faulty.lab.exec_in(node, (faulty.engine(node), "run", "-d", "--name", name, *words, faulty.image()))


def named(faulty: Faulty) -> set[str]:
    return {one.name for one in faulty.seen() if one.running}


def labels_for(one: Seen, **changed: str) -> dict[str, str]:
    mine = {key: value for key, value in one.labels.items() if key.startswith("korch.dev/")}
    return {**mine, **{f"korch.dev/{key}": value for key, value in changed.items()}}


def test_surplus_goes_a_few_at_a_time_and_orphans_stay(faulty: Faulty) -> None:
    faulty.korch("deploy", faulty.image(), "--replicas", "4", *AT_ONCE)
    first = faulty.check({"web": 4})
    faulty.korch("deploy", faulty.image("2"), "--replicas", "4", *AT_ONCE)
    second = faulty.check({"web": 4})
    ended = [one.uid for one in first]

    for node in ("d1", "p1"):  # of pods that ended: as from a start that came late
        for number, uid in enumerate(ended):
            imitate(faulty, node, f"late-{node}-{number}", labels_for(first[0], uid=uid))
        imitate(faulty, node, f"orphan-{node}", labels_for(first[0], uid="00000000-aaaa", pod="web-unknown"))
        imitate(faulty, node, f"other-{node}", labels_for(first[0], cluster="11111111-bbbb", uid=ended[0]))
    run = faulty.korch("sync")
    late = {name for name in named(faulty) if name.startswith("late-")}
    assert len([name for name in late if "-d1-" in name]) == 1  # three a pass
    assert len([name for name in late if "-p1-" in name]) == 1
    assert "2 more surplus container(s)" in run.err, run
    assert "2 container(s) of this cluster are unknown" in run.err, run

    faulty.korch("sync")
    kept = {f"{kind}-{node}" for kind in ("orphan", "other") for node in ("d1", "p1")}
    assert named(faulty) == {one.name for one in second} | kept
    faulty.korch("delete", "deployment", "web")
    assert named(faulty) == kept


def test_another_cluster_on_the_same_machines_and_somebody_elses_things(faulty: Faulty) -> None:
    before = faulty.foreign()
    faulty.korch("deploy", faulty.image(), "--replicas", "4", *AT_ONCE)
    mine = faulty.check({"web": 4})

    stranger = Korch(
        faulty.korch.home / "stranger", cluster="other", inventory=faulty.korch.inventory, cwd=faulty.korch.cwd
    )
    refused = stranger.fails(
        "deploy", faulty.image(), "--replicas", "1", status=6, says=["belongs to the korch cluster"]
    )
    assert "e2e" in refused.err, refused
    assert named(faulty) == {one.name for one in mine}

    faulty.korch("deploy", faulty.image("2"), "--replicas", "1", *AT_ONCE)
    faulty.korch("delete", "deployment", "web")
    faulty.korch("prune", status=None)
    faulty.check({})
    assert faulty.foreign() == before
