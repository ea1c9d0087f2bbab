"""The cluster's own certificates: an authority made once, and what it signs. The keys never leave their folder.

The authority lives for decades and begins in the past, so that a machine whose clock is wrong at the first start, or
that sleeps for months, does not end up with one that nobody can use. What it signs is short.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from korch.errors import InvalidError, SetupError
from korch.store.private import alone, keep_private, write_private

_CA_FROM = datetime(2020, 1, 1, tzinfo=UTC)
_CA_FOR = timedelta(days=30 * 365)
_SKEW = timedelta(hours=1)  # a client's clock may be behind by this
SERVER_DAYS = 30
_RENEW_BEFORE = timedelta(days=10)


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate and its key as PEM text. `serial`: in hexadecimal digits, as TLS libraries print it."""

    certificate: bytes
    key: bytes
    serial: str
    expires: float


@dataclass(frozen=True, slots=True)
class Authority:
    """Signs certificates. `pem` is its own certificate, which clients trust."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> bytes:
        """The certificate as PEM."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def issue_client(self, user: str, groups: Sequence[str], *, now: float, ttl_s: float) -> KeyPair:
        """A certificate with which a client proves to be `user` in `groups`."""
        names = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
        subject = x509.Name([*names, x509.NameAttribute(NameOID.COMMON_NAME, user)])
        return self._issue(subject, ExtendedKeyUsageOID.CLIENT_AUTH, (), now, timedelta(seconds=ttl_s))

    def issue_server(self, names: Sequence[str], *, now: float) -> KeyPair:
        """A certificate for a server that is reached under these names and addresses."""
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "korch")])
        return self._issue(subject, ExtendedKeyUsageOID.SERVER_AUTH, names, now, timedelta(days=SERVER_DAYS))

    def _issue(
        self, subject: x509.Name, use: x509.ObjectIdentifier, names: Sequence[str], now: float, life: timedelta
    ) -> KeyPair:
        key, begin = ec.generate_private_key(ec.SECP256R1()), datetime.fromtimestamp(now, UTC)
        end = min(begin + life, self.certificate.not_valid_after_utc)
        builder = (
            _builder(subject, self.certificate.subject, key.public_key(), begin - _SKEW, end)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([use]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName([_san(name) for name in names]), critical=False)
        certificate = builder.sign(self.key, hashes.SHA256())
        pem = certificate.public_bytes(serialization.Encoding.PEM)
        return KeyPair(pem, _key_pem(key), f"{certificate.serial_number:X}", end.timestamp())


def load_authority(folder: Path, cluster: str, *, now: float) -> Authority:
    """The authority in `folder`, which is made at the first call. `SetupError` when its files do not fit together."""
    with alone(folder / ".lock"):
        key = _load_key(folder / "ca.key")
        certificate = _load_certificate(folder / "ca.crt")
        if key is None and certificate is not None:
            raise SetupError(
                f"{folder / 'ca.key'} is missing beside ca.crt",
                hint=f"Put it back from a copy. Or remove {folder}: then all kubeconfigs have to be made anew.",
            )
        if key is None:
            key = ec.generate_private_key(ec.SECP256R1())
            write_private(folder / "ca.key", _key_pem(key))
        if certificate is None:  # also when we were killed between the two: nobody can have seen one yet
            certificate = _self_signed(key, cluster, now)
            write_private(folder / "ca.crt", certificate.public_bytes(serialization.Encoding.PEM))
    if certificate.public_key() != key.public_key():
        raise SetupError(f"{folder}: ca.crt does not belong to ca.key", hint="Put both back from one copy.")
    return Authority(certificate, key)


def certificate_of(folder: Path) -> str:
    """The authority's certificate as PEM, for whoever wants to trust it; "" where there is none yet."""
    found = _load_certificate(folder / "ca.crt")
    return "" if found is None else found.public_bytes(serialization.Encoding.PEM).decode()


class ServerCertificate:
    """The server's certificate in one file with its key, renewed when it is time."""

    def __init__(self, folder: Path, authority: Authority, names: Sequence[str]) -> None:
        self.path = folder / "server.pem"
        self._authority, self._names = authority, tuple(dict.fromkeys(names))

    def renew(self, now: float) -> bool:
        """Make a new one if the present one is missing, old, not valid yet, of another authority or for other names."""
        with alone(self.path.with_name(".lock")):
            if self._is_good(datetime.fromtimestamp(now, UTC)):
                return False
            pair = self._authority.issue_server(self._names, now=now)
            write_private(self.path, pair.certificate + pair.key)
            return True

    def _is_good(self, now: datetime) -> bool:
        try:
            found = _load_certificate(self.path)
            if found is None or _load_key(self.path) is None:
                return False
            found.verify_directly_issued_by(self._authority.certificate)
            names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except (SetupError, ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
            return False
        timely = found.not_valid_before_utc <= now < found.not_valid_after_utc - _RENEW_BEFORE
        return timely and set(names) == {_san(name) for name in self._names}


def _self_signed(key: ec.EllipticCurvePrivateKey, cluster: str, now: float) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"korch {cluster}"[:64])])
    end = max(datetime.fromtimestamp(now, UTC), _CA_FROM) + _CA_FOR
    return (
        _builder(name, name, key.public_key(), _CA_FROM, end)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .sign(key, hashes.SHA256())
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, begin: datetime, end: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


def _san(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        pass
    try:
        return x509.DNSName(name)
    except ValueError as error:
        raise InvalidError(f'"{name}" is neither an address nor the name of a machine') from error


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _load_key(path: Path) -> ec.EllipticCurvePrivateKey | None:
    try:
        keep_private(path)
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise SetupError(f"{path} holds no usable key", hint="Put it back from a copy.") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise SetupError(f"{path} holds another kind of key than korch makes", hint="Put it back from a copy.")
    return key


def _load_certificate(path: Path) -> x509.Certificate | None:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise SetupError(f"{path} holds no usable certificate", hint="Put it back from a copy.") from error
