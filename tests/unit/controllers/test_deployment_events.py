"""What people are told of a rollout, in Kubernetes' words."""

import asyncio

from msgspec.structs import replace

from korch.controllers.deployment import DeploymentController
from korch.master.background import background
from korch.objects.objects import Objects
from korch.objects.view import View
from korch.resources.misc import Event
from korch.resources.pod import Pod
from korch.resources.workload import Deployment, ReplicaSet
from tests.unit.controllers.cluster import deployment
from tests.unit.nodes.virtual_loop import LoopClock, run_virtually
from tests.unit.objects.memory_store import MemoryStore


def test_each_change_of_a_sets_size_is_an_event_of_the_deployment() -> None:
    async def main() -> None:
        objects = Objects(MemoryStore(), clock=LoopClock())  # type: ignore[arg-type]
        view = View(objects, (Deployment, ReplicaSet, Pod))
        controller = DeploymentController(view, LoopClock())
        await objects.create(deployment("web:1", 2))
        async with background() as group:
            await view.start(group)

            async def settle() -> None:
                for _ in range(4):
                    await asyncio.sleep(0.1)
                    await controller.reconcile(("default", "web"))

            await settle()
            (made,) = (await objects.list(ReplicaSet)).items
            await objects.modify(
                Deployment, "web", "default", lambda found: replace(found, spec=replace(found.spec, replicas=1))
            )
            await settle()
        events = [found for found in (await objects.list(Event)).items if found.reason == "ScalingReplicaSet"]
        name = made.metadata.name
        assert {(found.message, found.count) for found in events} == {
            (f"Scaled up replica set {name} from 0 to 2", 1),
            (f"Scaled down replica set {name} from 2 to 1", 1),
        }
        assert {found.involved_object.name for found in events} == {"web"}

    run_virtually(main)
