from korch.objects.events import EventRecorder
from korch.resources.meta import ObjectMeta
from korch.resources.misc import Event
from korch.resources.node import Node
from tests.unit.objects.things import World, pod, run


async def _record(world: World, message: str = "pulled web:1", **changes) -> None:
    words = {"type": "Normal", "reason": "Pulled", "component": "keeper", **changes}
    about = words.pop("about", pod("web-1", "default", uid="u1"))
    await world.objects.record_event(about, message=message, **words)


async def _events(world: World) -> tuple[Event, ...]:
    return (await world.objects.list(Event)).items


def test_an_event_says_what_happened_to_what():
    async def check(world: World) -> None:
        await _record(world)
        (event,) = await _events(world)
        assert (event.type, event.reason, event.message, event.count) == ("Normal", "Pulled", "pulled web:1", 1)
        about = event.involved_object
        assert (about.kind, about.namespace, about.name, about.uid) == ("Pod", "default", "web-1", "u1")
        assert event.source.component == "keeper"
        assert event.first_timestamp == event.last_timestamp == "2023-11-14T22:13:20Z"

    run(check)


def test_the_same_within_an_hour_is_counted():
    async def check(world: World) -> None:
        await _record(world)
        world.clock.time_s += 3599
        await _record(world)
        world.clock.time_s += 3599  # counted from the last time
        await _record(world)
        (event,) = await _events(world)
        assert event.count == 3
        assert (event.first_timestamp, event.last_timestamp) == ("2023-11-14T22:13:20Z", "2023-11-15T00:13:18Z")

    run(check)


def test_the_same_after_an_hour_is_news():
    async def check(world: World) -> None:
        await _record(world)
        world.clock.time_s += 3601
        await _record(world)
        (event,) = await _events(world)
        assert (event.count, event.first_timestamp) == (1, "2023-11-14T23:13:21Z")

    run(check)


def test_another_message_reason_type_or_object_is_another_event():
    async def check(world: World) -> None:
        await _record(world)
        await _record(world, "pulled web:2")
        await _record(world, reason="Started")
        await _record(world, type="Warning")
        await _record(world, about=pod("web-1", "default", uid="u2"))
        assert len(await _events(world)) == 5

    run(check)


def test_events_of_nodes_stand_in_the_default_namespace():
    async def check(world: World) -> None:
        await _record(world, about=Node(metadata=ObjectMeta(name="n1", uid="n")))
        (event,) = await _events(world)
        assert event.metadata.namespace == "default"
        assert event.involved_object.namespace == ""

    run(check)


def test_a_conflict_is_tried_again_and_never_raised():
    async def check(world: World) -> None:
        await _record(world)

        async def other() -> None:
            await _record(world)

        world.store.before_txn = other
        await _record(world)
        (event,) = await _events(world)
        assert event.count == 3

    run(check)


def test_the_oldest_go_above_the_bound():
    async def check(world: World) -> None:
        recorder = EventRecorder(world.objects._access, world.clock, keep=10, prune_every=5)
        for number in range(40):
            world.clock.time_s += 1
            await recorder.record(
                pod("web-1", "default"), type_="Normal", reason="N", message=str(number), component="test"
            )
        messages = sorted(int(event.message) for event in await _events(world))
        assert 10 <= len(messages) <= 14
        assert messages == list(range(40 - len(messages), 40))

    run(check)


def test_many_short_lived_processes_prune_in_their_turn(monkeypatch):
    async def check(world: World) -> None:
        pruned = 0

        async def prune(self) -> None:
            nonlocal pruned
            pruned += 1

        monkeypatch.setattr(EventRecorder, "prune", prune)
        for _ in range(400):
            recorder = EventRecorder(world.objects._access, world.clock, prune_every=4)
            await recorder.record(pod("a", "default"), type_="Normal", reason="R", message="m", component="test")
        assert 20 < pruned < 250  # 100 expected

    run(check)
