"""Certificates, and listeners of a RabbitMQ node that use them."""

import datetime
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from tests.support.rabbitmq import RabbitMQNode, free_ports

_LONG_AGO = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)

# Two threads to accept connections are enough.
_START_LISTENER = """
ok = rabbit_networking:start_ssl_listener({{"{host}", {port}}}, [
    {{cacertfile, "{authority}"}}, {{certfile, "{certificate}"}}, {{keyfile, "{key}"}}, {options}
], 2)
"""
_ASKS_FOR_A_CERTIFICATE = "{verify, verify_peer}, {fail_if_no_peer_cert, true}"
_ASKS_FOR_NONE = "{verify, verify_none}"


@dataclass(frozen=True)
class Certificate:
    """The files of a certificate and its key."""

    certificate: Path
    key: Path


class Authority:
    """An authority of one's own, its files in *folder*."""

    def __init__(self, folder: Path, name: str) -> None:
        self._authority = trustme.CA()
        self._folder = folder
        self.file = folder / f"{name}.pem"
        self._authority.cert_pem.write_to_path(self.file)

    def without_key_usage(self) -> Path:
        """The file of its certificate made carelessly: that does not say what its key is for."""
        certificate = x509.load_pem_x509_certificate(self._authority.cert_pem.bytes())
        key = serialization.load_pem_private_key(self._authority.private_key_pem.bytes(), None)
        careless = (
            x509.CertificateBuilder()
            .issuer_name(certificate.issuer)
            .subject_name(certificate.subject)
            .public_key(certificate.public_key())
            .serial_number(certificate.serial_number)
            .not_valid_before(certificate.not_valid_before_utc)
            .not_valid_after(certificate.not_valid_after_utc)
        )
        for extension in certificate.extensions:
            if not isinstance(extension.value, x509.KeyUsage):
                careless = careless.add_extension(extension.value, extension.critical)
        file = self.file.with_suffix(".careless.pem")
        signed = careless.sign(key, hashes.SHA256())  # type: ignore[arg-type]
        file.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
        return file

    def issue(self, name: str, *hosts: str, expired: bool = False) -> Certificate:
        """A certificate that is made out to *hosts*, in files called *name*."""
        issued = self._authority.issue_cert(*hosts, not_after=_LONG_AGO if expired else None)
        files = Certificate(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        issued.private_key_pem.write_to_path(files.key)
        for part in issued.cert_chain_pems:
            part.write_to_path(files.certificate, append=True)
        return files


@dataclass(frozen=True)
class TLSListeners:
    """Ports of a node: each speaks TLS, with certificates of *authority*."""

    authority: Authority
    stranger: Authority  #: another authority, which issued nothing
    client: Certificate  #: for clients
    port: int  #: has a certificate made out to localhost
    expired_port: int  #: has one that has expired
    client_certificate_port: int  #: takes only clients with a certificate
    plain_port: int  #: speaks no TLS


@contextmanager
def tls_listeners(node: RabbitMQNode) -> Iterator[TLSListeners]:
    """Have *node* listen with TLS too; the files of the certificates live meanwhile."""
    with TemporaryDirectory(prefix="qam-tls-") as folder:
        authority, stranger = (Authority(Path(folder), name) for name in ("ca", "stranger"))
        valid = authority.issue("valid", "localhost")
        expired = authority.issue("expired", "localhost", expired=True)
        ports = free_ports(3)
        listen(node, ports[0], authority.file, valid)
        listen(node, ports[1], authority.file, expired)
        listen(node, ports[2], authority.file, valid, _ASKS_FOR_A_CERTIFICATE)
        client = authority.issue("client", "client")
        yield TLSListeners(authority, stranger, client, *ports, node.port)


def listen(
    node: RabbitMQNode,
    port: int,
    authority: Path,
    server: Certificate,
    options: str = _ASKS_FOR_NONE,
) -> None:
    """Have *node* listen at another port, with TLS; *authority* is a file."""
    node.evaluate(
        _START_LISTENER.format(
            host=node.host,
            port=port,
            authority=authority,
            certificate=server.certificate,
            key=server.key,
            options=options,
        ),
    )
