"""What a node keeps of a workload follows what people wish, also where nothing is started."""

import asyncio
import json
from pathlib import Path

from korch.client.base import Workload
from korch.lab.lab import Lab
from korch.master.local import open_client
from korch.master.wishes import keep_wishes
from korch.settings import Settings
from korch.store.lease import Lead
from tests.lab.korch_cli import Site, make_site

QUICK = ("--settle", "0")


def kept_replicas(site: Site) -> dict[str, int]:
    """By node: the number of replicas in the wish that it keeps."""
    texts = {node: site.shell(node, "cat /var/lib/korch/*/wishes/* 2>/dev/null; :") for node in site.nodes}
    return {node: json.loads(text)["spec"]["replicas"] for node, text in texts.items() if text}


def test_a_scale_reaches_the_nodes_that_start_nothing(clean_docker_lab: Lab, tmp_path: Path) -> None:
    site = make_site(clean_docker_lab, tmp_path / "home")
    site.korch("deploy", site.image(), "--name", "web", "--replicas", "3", *QUICK)
    site.korch("scale", "web=2")
    settings = Settings(site.korch.home, "e2e", (site.korch.inventory,))

    async def keep() -> tuple[tuple[str, ...], int, int]:
        client = await open_client(settings)
        try:
            contacts = await client.fleet.contacts(claim=True)
            lead = Lead(client.cluster.store, lock_file=settings.cluster_dir / "lead.lock")
            assert await lead.acquire(wait_s=5.0)
            epoch = await lead.raise_epoch(max(found.report.epoch for found in contacts.values()))
            before = await client.cluster.store.revision()
            problems = await keep_wishes(client.cluster, contacts, epoch, [Workload("default", "web")], {})
            after = await client.cluster.store.revision()
            await lead.release()
        finally:
            await client.close()
        return problems, before, after

    problems, _, _ = asyncio.run(keep())
    assert problems == ()
    where = {found.node for found in site.of("web")}
    assert kept_replicas(site) == dict.fromkeys(where, 2)
    problems, before, after = asyncio.run(keep())
    assert (problems, before) == ((), after), "nothing to send, nothing to note"
    site.korch("delete", "web")
    assert kept_replicas(site) == {}
