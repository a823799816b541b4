"""Why an attempt to connect failed, in words that say what to do."""

import ssl

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
