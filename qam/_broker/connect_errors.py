"""Explains to a person why a connection to the broker could not be opened."""

import socket
import ssl

import amqp

from qam._broker.endpoint import Endpoint
from qam._common.printable import printable

# OpenSSL's error codes for a certificate that does not name the host, or the address.
_WRONG_NAME = {62, 64}
_EXPIRED = 10
# Its codes for a certificate that violates RFC 5280; it checks that with VERIFY_X509_STRICT only.
_MALFORMED = range(80, 95)
# The errors of OpenSSL if a peer answers in plain text.
_NO_TLS = {"WRONG_VERSION_NUMBER", "UNKNOWN_PROTOCOL", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG"}


def why_refused(error: Exception, endpoint: Endpoint, timeout: float) -> str:
    """Return the reason for *error*, raised by an attempt to connect within *timeout* seconds."""
    if isinstance(error, amqp.AccessRefused):
        return f"access refused; are user name and password right?{_guest_hint(endpoint)}"
    if isinstance(error, (amqp.NotAllowed, amqp.NotFound)):
        what = f"the vhost {endpoint.vhost!r} does not exist, or this user may not access it"
        return f"{what}{_vhost_hint(endpoint)}"
    if isinstance(error, socket.gaierror):
        return f"the host name is unknown ({error.strerror})"
    if isinstance(error, ConnectionRefusedError):
        return f"nothing listens there; is the broker running?{_port_hint(endpoint)}"
    if isinstance(error, TimeoutError):
        return f"no answer within {timeout:g} seconds{_port_hint(endpoint)}"
    if isinstance(error, ssl.SSLError):
        return _why_no_tls(error, endpoint.host)
    if isinstance(error, ConnectionError) and endpoint.tls is not None:
        return f"{error_text(error)}; {_CLIENT_CERTIFICATE}"
    return f"{error_text(error)}{_port_hint(endpoint)}"


_OWN_HOST = ("localhost", "127.", "::1")


def _guest_hint(endpoint: Endpoint) -> str:
    if endpoint.username != "guest" or endpoint.host.startswith(_OWN_HOST):
        return ""
    return (
        "; RabbitMQ lets 'guest' in from its own host only: "
        "from another one, pass username= and password= of another user"
    )


def _vhost_hint(endpoint: Endpoint) -> str:
    name = endpoint.vhost.removeprefix("/")
    return f"; a vhost {name!r} has no '/' in its name" if name != endpoint.vhost and name else ""


# What listens at other ports of RabbitMQ by default.
_OTHER_PORTS = {
    5671: "5671 is the port for TLS: pass ssl=True, or use amqps://",
    15672: "15672 is the port of the management, and 5672 that of AMQP",
    25672: "25672 is the port between the nodes of a cluster, and 5672 that of AMQP",
}


def _port_hint(endpoint: Endpoint) -> str:
    if endpoint.port not in _OTHER_PORTS or endpoint.tls is not None:
        return ""
    return f"; {_OTHER_PORTS[endpoint.port]}"


def error_text(error: Exception) -> str:
    """Return the text of *error* in one printable line; the name of its type if it has none."""
    text = getattr(error, "reply_text", None) or str(error)
    return printable(text or type(error).__name__)


_CLIENT_CERTIFICATE = (
    "if the broker requires a client certificate, "
    "pass one as 'certfile' and 'keyfile' in the dict ssl={…}"
)


def _why_no_tls(error: ssl.SSLError, host: str) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"TLS failed: {_why_not_verified(error, host)}"
    reason = error.reason or ""
    if reason in _NO_TLS:
        return "that port does not speak TLS; RabbitMQ's default port for TLS is 5671"
    if "CERTIFICATE_REQUIRED" in reason or "HANDSHAKE_FAILURE" in reason:
        return f"TLS failed ({reason}); {_CLIENT_CERTIFICATE}"
    if isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
        return f"the connection was closed in the TLS handshake; {_CLIENT_CERTIFICATE}"
    return f"TLS failed ({reason or error})"


def _why_not_verified(error: ssl.SSLCertVerificationError, host: str) -> str:
    if error.verify_code in _WRONG_NAME:
        return (
            f"the broker's certificate does not name {host!r} ({error.verify_message}); "
            "connect by a name in the certificate, or pass ssl={'server_hostname': …}"
        )
    if error.verify_code == _EXPIRED:
        return "the broker's certificate has expired"
    if error.verify_code in _MALFORMED:
        return (
            "the certificate of the broker or of its authority violates RFC 5280 "
            f"({error.verify_message}); have it issued again, or pass as ssl=… an SSLContext "
            "without ssl.VERIFY_X509_STRICT, which Python 3.13 and later set"
        )
    return (
        f"the broker's certificate is not trusted ({error.verify_message}); "
        "if you use an authority of your own, pass ssl={'ca_certs': …}"
    )
