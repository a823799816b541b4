"""Why an attempt to connect failed, in words that say what to do."""

import socket
import ssl
from typing import Any

import amqp
import pytest

from qam._broker.connect_errors import why_refused
from qam.amqp_credentials import AMQPCredentials


def tls_error(kind: type[ssl.SSLError], reason: str | None) -> ssl.SSLError:
    error = kind(1, "what OpenSSL says")
    error.reason = reason  # type: ignore[assignment]
    return error


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (tls_error(ssl.SSLError, "WRONG_VERSION_NUMBER"), "that port does not speak TLS"),
        (tls_error(ssl.SSLError, "TLSV13_ALERT_CERTIFICATE_REQUIRED"), "certificate"),
        (tls_error(ssl.SSLError, "SSLV3_ALERT_HANDSHAKE_FAILURE"), "certificate"),
        (tls_error(ssl.SSLEOFError, None), "the connection was closed in the TLS handshake"),
        (tls_error(ssl.SSLError, "SOME_REASON"), "TLS failed (SOME_REASON)"),
        (ConnectionResetError(104, "reset by peer"), "certificate"),
    ],
)
def test_an_error_of_tls_is_told_with_what_may_be_missing(error: Exception, told: str) -> None:
    [endpoint] = AMQPCredentials("broker", ssl=True).endpoints()

    assert told in why_refused(error, endpoint, timeout=1.0)


def test_a_reset_without_tls_says_nothing_of_certificates() -> None:
    [endpoint] = AMQPCredentials("broker").endpoints()

    told = why_refused(ConnectionResetError(104, "reset by peer"), endpoint, timeout=1.0)

    assert "reset by peer" in told
    assert "certificate" not in told


# --- hints ------------------------------------------------------------------------------------


def told(error: Exception, **credentials: Any) -> str:
    [endpoint] = AMQPCredentials(**({"hostname": "broker"} | credentials)).endpoints()
    return why_refused(error, endpoint, timeout=1.0)


def test_guest_is_told_that_it_may_come_from_the_brokers_host_only() -> None:
    text = told(amqp.AccessRefused("no"))

    assert "RabbitMQ lets 'guest' in from its own host only" in text
    assert "pass username= and password=" in text


@pytest.mark.parametrize(
    "credentials",
    [{"username": "alice"}, *({"hostname": each} for each in ("localhost", "127.0.0.1", "::1"))],
    ids=str,
)
def test_anybody_else_is_asked_whether_name_and_password_are_right(
    credentials: dict[str, str],
) -> None:
    text = told(amqp.AccessRefused("no"), password="x", **credentials)

    assert text == "access refused; are user name and password right?"


@pytest.mark.parametrize("error", [amqp.NotAllowed("no"), amqp.NotFound("no")])
@pytest.mark.parametrize(("vhost", "hint"), [("/shop", True), ("shop", False), ("/", False)])
def test_a_vhost_that_is_written_like_a_path_is_told_its_name(
    error: Exception, vhost: str, hint: bool
) -> None:
    text = told(error, vhost=vhost)

    assert f"the vhost {vhost!r} does not exist" in text
    assert ("a vhost 'shop' has no '/' in its name" in text) is hint


@pytest.mark.parametrize(
    "error",
    [ConnectionResetError(104, "reset"), TimeoutError(), ConnectionRefusedError(), OSError("odd")],
)
@pytest.mark.parametrize(
    ("port", "hint"),
    [(5671, "pass ssl=True"), (15672, "5672 that of AMQP"), (25672, "5672 that of AMQP")],
)
def test_at_another_port_of_rabbitmq_it_is_told_what_that_is_for(
    error: Exception, port: int, hint: str
) -> None:
    assert hint in told(error, port=port)
    assert hint not in told(error)
    assert hint not in told(error, port=port, ssl=True)


def test_an_unknown_host_is_told_as_such() -> None:
    assert "the host name is unknown" in told(socket.gaierror(-2, "no such name"))
