"""What every namespace is given: made, made again, put right, and gone with it."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from korch.api.security.pki import certificate_of, load_authority
from korch.controllers.given import KINDS, Giving, plan_given
from korch.errors import ForbiddenError, NotFoundError
from korch.master.background import background
from korch.objects.objects import Objects
from korch.objects.view import View
from korch.resources.codec import with_meta
from korch.resources.config import DEFAULT_ACCOUNT, ROOT_CA, ConfigMap, ServiceAccount
from korch.resources.meta import ObjectMeta
from korch.resources.misc import Namespace
from korch.resources.pod import LocalObjectReference
from tests.unit.nodes.virtual_loop import LoopClock, run_virtually
from tests.unit.objects.memory_store import MemoryStore

PEM = "-----BEGIN CERTIFICATE-----\nA\n"
DATA = st.sampled_from([{}, {"ca.crt": PEM}, {"ca.crt": "other"}, {"ca.crt": PEM, "more": "x"}])
ACCOUNTS = st.none() | st.builds(
    ServiceAccount,
    metadata=st.just(ObjectMeta(name=DEFAULT_ACCOUNT, namespace="shop")),
    image_pull_secrets=st.sampled_from([(), (LocalObjectReference(name="r"),)]),
)
MAPS = st.none() | st.builds(
    ConfigMap,
    metadata=st.builds(
        ObjectMeta, name=st.just(ROOT_CA), namespace=st.just("shop"), labels=st.sampled_from([{}, {"a": "b"}])
    ),
    data=DATA,
    immutable=st.sampled_from([None, True]),
)


def space(name: str = "shop", *, going: bool = False) -> Namespace:
    at = "2026-01-01T00:00:00Z" if going else None
    return Namespace(metadata=ObjectMeta(name=name, deletion_timestamp=at))


@given(ACCOUNTS, MAPS, st.sampled_from(["", PEM]), st.booleans())
def test_a_second_plan_gives_nothing(
    account: ServiceAccount | None, trust: ConfigMap | None, pem: str, going: bool
) -> None:
    plan = plan_given(space(going=going), account, trust, pem)
    if going:
        assert not plan.create
        assert not plan.update
        return
    for made in (*plan.create, *plan.update):
        assert made.metadata.namespace == "shop"
        if isinstance(made, ServiceAccount):
            assert account is None
            account = made
        elif isinstance(made, ConfigMap):
            assert pem
            trust = made
    assert account is not None
    assert (trust is None) <= (not pem)
    if pem and trust is not None and not trust.immutable:
        assert trust.data == {"ca.crt": PEM}
    again = plan_given(space(), account, trust, pem)
    assert not again.create
    assert not again.update


class Site:
    """A master's part that gives, on one store."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.objects = Objects(self.store, clock=LoopClock())  # type: ignore[arg-type]
        self.view = View(self.objects, KINDS)

    async def has(self, namespace: str = "default") -> list[str]:
        """What is there once nothing moves any more."""
        await asyncio.sleep(5)
        accounts = (await self.objects.list(ServiceAccount, namespace)).items
        maps = (await self.objects.list(ConfigMap, namespace)).items
        return [obj.metadata.name for obj in (*accounts, *maps)]


def on_site(body: Callable[[Site], Awaitable[None]], pem: str = PEM) -> None:
    async def main() -> None:
        site = Site()
        await site.objects.ensure_default_namespace()
        async with background() as group:
            await site.view.start(group)
            group.create_task(Giving(site.view, pem).run())
            await body(site)

    run_virtually(main)


BOTH = [DEFAULT_ACCOUNT, ROOT_CA]


def test_old_and_new_namespaces_have_both_and_get_them_back() -> None:
    async def body(site: Site) -> None:
        assert await site.has() == BOTH
        await site.objects.create(Namespace(metadata=ObjectMeta(name="shop")))
        assert await site.has("shop") == BOTH
        was = await site.objects.get(ServiceAccount, DEFAULT_ACCOUNT, "shop")
        await site.objects.delete(ServiceAccount, DEFAULT_ACCOUNT, "shop")
        await site.objects.delete(ConfigMap, ROOT_CA, "shop")
        assert await site.has("shop") == BOTH
        now = await site.objects.get(ServiceAccount, DEFAULT_ACCOUNT, "shop")
        assert now.metadata.uid != was.metadata.uid  # tokens of the one before count no more

    on_site(body)


def test_a_changed_certificate_is_put_right_and_a_changed_account_is_left() -> None:
    async def body(site: Site) -> None:
        await site.has()
        pull = (LocalObjectReference(name="registry"),)
        await site.objects.modify(
            ServiceAccount, DEFAULT_ACCOUNT, "default", lambda found: replace(found, image_pull_secrets=pull)
        )
        await site.objects.modify(ConfigMap, ROOT_CA, "default", lambda found: replace(found, data={"ca.crt": "x"}))
        assert await site.has() == BOTH
        assert (await site.objects.get(ServiceAccount, DEFAULT_ACCOUNT)).image_pull_secrets == pull
        assert (await site.objects.get(ConfigMap, ROOT_CA)).data == {"ca.crt": PEM}
        writes = site.store.writes
        await site.objects.modify(ConfigMap, ROOT_CA, "default", lambda found: with_meta(found, labels={"a": "b"}))
        await site.has()
        assert site.store.writes == writes + 1

    on_site(body)


def test_where_there_is_no_api_yet_only_the_account_is_given() -> None:
    async def body(site: Site) -> None:
        assert await site.has() == [DEFAULT_ACCOUNT]

    on_site(body, pem="")


def test_what_is_given_keeps_no_namespace_and_goes_with_it() -> None:
    async def body(site: Site) -> None:
        await site.objects.create(Namespace(metadata=ObjectMeta(name="shop")))
        await site.has("shop")
        for more in (
            ConfigMap(metadata=ObjectMeta(name="a", namespace="shop")),
            ServiceAccount(metadata=ObjectMeta(name="z", namespace="shop")),
        ):
            await site.objects.create(more)
            with pytest.raises(ForbiddenError, match="still holds"):
                await site.objects.delete(Namespace, "shop", "")
            await site.objects.delete(type(more), more.metadata.name, "shop")
        await site.objects.delete(Namespace, "shop", "")
        assert await site.has("shop") == []
        assert not [key for key in site.store.records if "/shop" in key]
        with pytest.raises(NotFoundError):
            await site.objects.get(Namespace, "shop", "")

    on_site(body)


def test_the_certificate_is_the_one_that_kubeconfigs_trust(tmp_path: Path) -> None:
    assert certificate_of(tmp_path / "pki") == ""
    authority = load_authority(tmp_path / "pki", "c", now=1_800_000_000.0)
    assert certificate_of(tmp_path / "pki").encode() == authority.pem
