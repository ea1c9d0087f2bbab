"""Tokens on record, buckets, the audit file: the parts behind the door."""

import asyncio
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from korch.api.security.audit import AuditLog
from korch.api.security.authenticate import Subject, bearer_token, impersonated, subject_of
from korch.api.security.credentials import PREFIX, Credentials, fits, split_token
from korch.api.security.limits import Buckets, Limits, TooManyError, Turnstile
from korch.api.security.users import AUTHENTICATED, MASTERS, User, check_namespace, check_user_name, grants_of
from korch.errors import ForbiddenError, InvalidError, NotFoundError
from korch.store.sqlite import open_sqlite

NOW = 1_800_000_000.0


def test_a_token_is_stored_as_a_hash_and_revoked_for_good(tmp_path: Path) -> None:
    async def main() -> None:
        store = await open_sqlite(tmp_path / "state.db")
        try:
            credentials = Credentials(store)
            minted = await credentials.mint_token("tom", ("korch:view",), now=NOW, ttl_s=60)
            id_, secret = split_token(minted.token) or ("", "")
            record = await store.get(PREFIX + id_)
            assert record is not None
            assert secret.encode() not in record.value
            assert secret not in repr(minted)
            assert fits(await credentials.find(id_), secret)
            assert not fits(await credentials.find(id_), secret[::-1])
            assert not fits(None, secret)
            assert [one.id for one in await credentials.all()] == [id_]
            assert (await credentials.revoke(id_.upper())).user == "tom"
            assert await credentials.find(id_) is None
            with pytest.raises(NotFoundError):
                await credentials.revoke(id_)
        finally:
            await store.close()

    asyncio.run(main())


def test_a_certificate_is_no_token(tmp_path: Path) -> None:
    async def main() -> None:
        store = await open_sqlite(tmp_path / "state.db")
        try:
            one = await Credentials(store).add_certificate("AB12", "jane", (), now=NOW, expires=NOW + 1)
            assert not fits(one, "")
        finally:
            await store.close()

    asyncio.run(main())


def test_what_expired_long_ago_is_forgotten(tmp_path: Path) -> None:
    async def main() -> None:
        store = await open_sqlite(tmp_path / "state.db")
        try:
            credentials = Credentials(store)
            await credentials.mint_token("old", (), now=NOW, ttl_s=60)
            kept = await credentials.mint_token("new", (), now=NOW, ttl_s=6000)
            assert await credentials.forget_expired(NOW + 600, after_s=1000) == 0
            assert await credentials.forget_expired(NOW + 600) == 1
            assert await credentials.all() == (kept.credential,)
        finally:
            await store.close()

    asyncio.run(main())


@given(st.text(max_size=120))
def test_any_text_is_a_token_of_ours_or_none(text: str) -> None:
    parts = split_token(text)
    assert parts is None or text == "korch_" + "_".join(parts)


@given(st.lists(st.text(max_size=30), max_size=6))
def test_only_exact_groups_grant_everything(groups: list[str]) -> None:
    everything = any(grant == ("admin", "") for grant in grants_of(tuple(groups)))
    assert everything == bool({MASTERS, "korch:admin"} & set(groups))


@pytest.mark.parametrize(
    ("headers", "token"),
    [
        ([], None),
        ([(b"authorization", b"Bearer abc")], "abc"),
        ([(b"authorization", b"bearer  abc ")], "abc"),
        ([(b"authorization", b"Basic abc")], ""),
        ([(b"authorization", b"")], ""),
        ([(b"authorization", b"Basic x"), (b"authorization", b"Bearer abc")], ""),  # the first one counts
    ],
)
def test_the_bearer_header(headers: list[tuple[bytes, bytes]], token: str | None) -> None:
    assert bearer_token(headers) == token


def test_the_names_in_a_certificate() -> None:
    subject = ((("organizationName", "a"),), (("organizationName", "b"),), (("commonName", "jane"),))
    assert subject_of({"subject": subject, "serialNumber": "0AB1"}) == Subject("jane", ("a", "b"), "ab1")
    assert subject_of({"subject": (*subject, (("commonName", "eve"),)), "serialNumber": "0AB1"}) is None
    assert subject_of({}) is None
    assert subject_of(None) is None


@pytest.mark.parametrize(
    "headers",
    [
        [(b"impersonate-group", b"system:masters")],
        [(b"impersonate-user", b"a"), (b"impersonate-user", b"b")],
        [(b"impersonate-user", b"")],
        [(b"impersonate-uid", b"1")],
    ],
)
def test_acting_as_nobody_in_particular(headers: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(ForbiddenError):
        impersonated(User("tom", (MASTERS,)), headers)


def test_acting_as_a_service_account_is_in_its_groups() -> None:
    """As in Kubernetes, unless the request names groups itself."""
    tom, who = User("tom", (MASTERS,)), (b"impersonate-user", b"system:serviceaccount:shop:bot")
    both = ("system:serviceaccounts", "system:serviceaccounts:shop")
    assert impersonated(tom, [who]).groups == (*both, AUTHENTICATED)
    assert impersonated(tom, [who, (b"impersonate-group", b"dev")]).groups == ("dev", AUTHENTICATED)
    for other in (b"jane", b"system:serviceaccount:shop", b"system:serviceaccount::bot"):
        assert impersonated(tom, [(b"impersonate-user", other)]).groups == (AUTHENTICATED,)


@pytest.mark.parametrize("name", ["", " a", "a\n", "x" * 65, "system:node:a", "\x00"])
def test_names_that_no_user_can_have(name: str) -> None:
    with pytest.raises(InvalidError):
        check_user_name(name)


@pytest.mark.parametrize("name", ["", "A", "a:b", "a/b", "x" * 64])
def test_names_that_no_namespace_can_have(name: str) -> None:
    with pytest.raises(InvalidError):
        check_namespace(name)


@settings(max_examples=200)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.floats(0, 2)), max_size=60))
def test_never_more_than_rate_and_burst(events: list[tuple[str, float]]) -> None:
    buckets, now, allowed = Buckets(2.0, 5.0), 0.0, {"a": 0, "b": 0}
    for key, pause in events:
        now += pause
        allowed[key] += buckets.take(key, now)
        assert allowed[key] <= 5.0 + 2.0 * now + 1e-6


def test_ten_thousand_strangers_fill_no_memory() -> None:
    buckets = Buckets(5.0, 50.0)
    for number in range(10_000):
        assert buckets.take(str(number), number * 1e-6)
    assert len(buckets._buckets) <= 4096


def test_what_is_open_is_counted_back() -> None:
    stile = Turnstile(Limits(at_once=1))
    with stile.passing("a", 0.0, stream=False):
        with pytest.raises(TooManyError), stile.passing("a", 0.0, stream=False):
            pass
        with stile.passing("b", 0.0, stream=False), stile.passing("a", 0.0, stream=True):
            pass
    with stile.passing("a", 0.0, stream=False):
        pass
    assert not stile.open


def test_the_audit_file_is_bounded_and_loses_nothing_while_it_can_write(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "audit.log"
    log = AuditLog(path, max_bytes=1000, keep=3)
    for number in range(60):
        log.write({"number": number, "nothing": "", "agent": "x" * 1000})
    log.close()
    files = [path, *(path.with_name(f"audit.log.{n}") for n in (1, 2))]
    assert sorted(path.parent.iterdir()) == sorted(files)
    assert all(one.stat().st_size <= 1000 and one.stat().st_mode & 0o777 == 0o600 for one in files)
    lines = [json.loads(line) for one in reversed(files) for line in one.read_text().splitlines()]
    assert [one["number"] for one in lines] == list(range(60 - len(lines), 60))
    assert len(lines[0]["agent"]) < 300


def test_two_masters_write_one_audit_file(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    logs = [AuditLog(path, max_bytes=2000, keep=50) for _ in range(2)]
    for number in range(100):
        for log in logs:
            log.write({"number": number})
    for log in logs:
        log.close()
    lines = [line for one in tmp_path.iterdir() for line in one.read_text().splitlines()]
    assert all(json.loads(line) for line in lines)


def test_an_audit_file_that_cannot_be_written_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "audit.log").mkdir()
    log = AuditLog(tmp_path / "audit.log")
    for _ in range(5):
        log.write({"a": 1})
    log.close()
    assert caplog.text.count("cannot be written") == 1
