"""The cluster's own certificates."""

import os
import ssl
import stat
from multiprocessing import get_context
from pathlib import Path

import pytest
from cryptography import x509

from korch.api.security.pki import SERVER_DAYS, ServerCertificate, load_authority
from korch.errors import SetupError

NOW = 1_800_000_000.0
DAY = 86_400.0


def _read(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def test_the_authority_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    folder = tmp_path / "pki"
    os.umask(0o022)
    first = load_authority(folder, "shop", now=NOW)
    second = load_authority(folder, "shop", now=NOW + 5000 * DAY)
    assert first.pem == second.pem
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    assert first.certificate.not_valid_before_utc.year == 2020
    assert first.certificate.not_valid_after_utc.timestamp() > NOW + 29 * 365 * DAY


def test_a_key_that_others_may_read_is_closed_again(tmp_path: Path) -> None:
    load_authority(tmp_path, "shop", now=NOW)
    (tmp_path / "ca.key").chmod(0o644)
    load_authority(tmp_path, "shop", now=NOW)
    assert stat.S_IMODE((tmp_path / "ca.key").stat().st_mode) == 0o600


def test_killed_between_key_and_certificate(tmp_path: Path) -> None:
    before = load_authority(tmp_path, "shop", now=NOW)
    (tmp_path / "ca.crt").unlink()
    after = load_authority(tmp_path, "shop", now=NOW)
    assert after.certificate.public_key() == before.certificate.public_key()


@pytest.mark.parametrize("missing", ["lost", "rubbish", "another"])
def test_files_that_do_not_fit_together(tmp_path: Path, missing: str) -> None:
    load_authority(tmp_path, "shop", now=NOW)
    key = tmp_path / "ca.key"
    if missing == "lost":
        key.unlink()
    elif missing == "rubbish":
        key.write_text("no key")
    else:
        load_authority(tmp_path / "other", "shop", now=NOW)
        key.write_bytes((tmp_path / "other" / "ca.key").read_bytes())
    with pytest.raises(SetupError) as caught:
        load_authority(tmp_path, "shop", now=NOW)
    assert caught.value.hint


def _make(folder: str) -> bytes:
    return load_authority(Path(folder), "shop", now=NOW).pem


def test_two_masters_that_start_at_once_have_one_authority(tmp_path: Path) -> None:
    with get_context("spawn").Pool(2) as pool:
        made = pool.map(_make, [str(tmp_path / "pki")] * 2, chunksize=1)
    assert made[0] == made[1]


def test_a_server_certificate_is_for_the_names_asked(tmp_path: Path) -> None:
    authority = load_authority(tmp_path, "shop", now=NOW)
    server = ServerCertificate(tmp_path, authority, ("localhost", "127.0.0.1", "::1", "192.0.2.7", "m1.example.com"))
    assert server.renew(NOW)
    found = _read(server.path)
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost", "m1.example.com"]
    assert [str(one) for one in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1", "192.0.2.7"]
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(server.path)


@pytest.mark.parametrize(
    ("later", "renewed"),
    [
        (0.0, False),
        (5 * DAY, False),
        ((SERVER_DAYS - 9) * DAY, True),
        (300 * DAY, True),  # it slept
        (-300 * DAY, True),  # its clock was put right
    ],
)
def test_when_a_server_certificate_is_renewed(tmp_path: Path, later: float, renewed: bool) -> None:
    authority = load_authority(tmp_path, "shop", now=NOW)
    server = ServerCertificate(tmp_path, authority, ("localhost",))
    assert server.renew(NOW)
    assert server.renew(NOW + later) is renewed
    found = _read(server.path)
    assert found.not_valid_before_utc.timestamp() <= NOW + later < found.not_valid_after_utc.timestamp() - 9 * DAY


def test_a_server_certificate_of_other_names_or_another_authority_is_replaced(tmp_path: Path) -> None:
    authority = load_authority(tmp_path, "shop", now=NOW)
    ServerCertificate(tmp_path, authority, ("localhost",)).renew(NOW)
    assert ServerCertificate(tmp_path, authority, ("localhost", "192.0.2.1")).renew(NOW)
    other = load_authority(tmp_path / "other", "shop", now=NOW)
    assert ServerCertificate(tmp_path, other, ("localhost", "192.0.2.1")).renew(NOW)
    (tmp_path / "server.pem").write_text("half a fi")
    assert ServerCertificate(tmp_path, other, ("localhost", "192.0.2.1")).renew(NOW)


def test_a_client_certificate_names_user_and_groups(tmp_path: Path) -> None:
    authority = load_authority(tmp_path, "shop", now=NOW)
    pair = authority.issue_client("jane", ("korch:view:" + "n" * 63, "korch:edit"), now=NOW, ttl_s=3600)
    found = x509.load_pem_x509_certificate(pair.certificate)
    assert [str(one.value) for one in found.subject] == ["korch:view:" + "n" * 63, "korch:edit", "jane"]
    assert found.not_valid_after_utc.timestamp() == pair.expires == NOW + 3600
    assert f"{found.serial_number:X}" == pair.serial
    use = found.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert [one._name for one in use] == ["clientAuth"]
