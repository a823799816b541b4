"""TLS: the options of `ssl=`, and both sides against a RabbitMQ that listens with it."""

import copy
import re
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

from qam import QAMConnectionException, QAMProxy, QAMServer
from qam._broker.tls import TLS, make_tls
from qam.amqp_credentials import AMQPCredentials
from tests.support.rabbitmq import RabbitMQNode
from tests.support.service import serving
from tests.support.tls import Authority, TLSListeners, tls_listeners

# --- the options --------------------------------------------------------------


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "ca")


def context_of(option: Any) -> ssl.SSLContext:
    tls = make_tls(option)
    assert tls is not None
    return tls.context


@pytest.mark.parametrize("option", [False, None])
def test_without_the_option_there_is_no_tls(option: Any) -> None:
    assert make_tls(option) is None


@pytest.mark.parametrize("option", [True, {}, {"server_hostname": "broker"}])
def test_chain_and_host_name_are_verified_if_nothing_else_is_said(option: Any) -> None:
    context = context_of(option)

    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname


def test_authorities_of_ones_own_take_the_place_of_the_systems(authority: Authority) -> None:
    context = context_of({"ca_certs": authority.file})

    assert len(context.get_ca_certs()) == 1
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname


def test_a_context_is_taken_as_it_is() -> None:
    context = ssl.create_default_context()

    assert make_tls(context) == TLS(context)


def test_the_host_name_is_not_checked_if_that_is_said() -> None:
    context = context_of({"check_hostname": False})

    assert not context.check_hostname
    assert context.verify_mode == ssl.CERT_REQUIRED


def test_nothing_is_verified_if_that_is_said() -> None:
    context = context_of({"cert_reqs": ssl.CERT_NONE})

    assert context.verify_mode == ssl.CERT_NONE
    assert not context.check_hostname


def test_ciphers_can_be_chosen() -> None:
    names = {each["name"] for each in context_of({"ciphers": "ECDHE+AESGCM"}).get_ciphers()}

    assert not any("CHACHA20" in name for name in names if not name.startswith("TLS_"))


def test_a_dict_is_never_changed(authority: Authority) -> None:
    option = {"ca_certs": str(authority.file), "server_hostname": "broker"}
    before = copy.deepcopy(option)

    credentials = AMQPCredentials("localhost", ssl=option).resolved()

    assert option == before
    assert credentials.tls is not None
    assert credentials.tls.server_hostname == "broker"


@pytest.mark.parametrize("option", ["yes", 1, 0, ["ca_certs"], b""])
def test_what_is_no_option_is_a_type_error_at_once(option: Any) -> None:
    with pytest.raises(TypeError, match="ssl must be True, False"):
        AMQPCredentials("localhost", ssl=option)


@pytest.mark.parametrize("key", ["ca_cert", "verify", "context", 1])
def test_a_key_that_is_not_known_is_a_value_error_that_names_it(key: Any) -> None:
    with pytest.raises(ValueError, match=f"{key!r} is not known"):
        AMQPCredentials("localhost", ssl={key: "x"})


@pytest.mark.parametrize(
    ("option", "name"),
    [
        ({"check_hostname": None}, "check_hostname"),
        ({"check_hostname": 0}, "check_hostname"),
        ({"cert_reqs": None}, "cert_reqs"),
        ({"cert_reqs": False}, "cert_reqs"),
        ({"cert_reqs": "required"}, "cert_reqs"),
    ],
)
def test_verification_is_turned_off_by_saying_so_and_not_by_accident(
    option: dict[str, Any], name: str
) -> None:
    with pytest.raises(TypeError, match=f"ssl: {name} must be"):
        make_tls(option)


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ({"ca_certs": "absent.pem"}, "ca_certs='absent.pem' can't be used"),
        ({"certfile": "absent.pem"}, "certfile and keyfile.*absent.pem.* can't be used"),
        ({"keyfile": "absent.key"}, "a keyfile needs the certfile"),
        ({"ciphers": "NONE-SUCH"}, "ciphers='NONE-SUCH' can't be used"),
    ],
)
def test_what_cannot_be_loaded_is_named(option: dict[str, str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        QAMProxy("server", ssl=option)


def test_an_encrypted_key_needs_its_password(authority: Authority, tmp_path: Path) -> None:
    # given
    client = authority.issue("client", "client")
    key = serialization.load_pem_private_key(client.key.read_bytes(), password=None)
    encrypted = tmp_path / "encrypted.key"
    encrypted.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"open sesame"),
        )
    )
    option = {"certfile": client.certificate, "keyfile": encrypted}

    # then it is not asked for at the terminal
    with pytest.raises(ValueError, match="give its password"):
        make_tls(option)
    assert make_tls(option | {"password": "open sesame"})


def test_a_password_is_not_shown() -> None:
    option = {"certfile": "mine.pem", "password": "open sesame"}

    assert "sesame" not in repr(AMQPCredentials("localhost", ssl=option))


@pytest.mark.parametrize("option", [False, {}, True])
def test_a_url_with_amqps_is_verified_whatever_else_is_not_said(option: Any) -> None:
    credentials = AMQPCredentials("amqps://broker", ssl=option).resolved()

    assert credentials.tls is not None
    assert credentials.tls.context.verify_mode == ssl.CERT_REQUIRED


# --- against a RabbitMQ -----------------------------------------------------------


@pytest.fixture(scope="module")
def listeners(rabbitmq_node: RabbitMQNode) -> Iterator[TLSListeners]:
    with tls_listeners(rabbitmq_node) as listeners:
        yield listeners


def assert_refused(words: str, **place: Any) -> None:
    """Neither side can connect, and each says why with *words*."""
    with pytest.raises(QAMConnectionException, match=re.escape(words)):
        QAMServer(server_id="refused", **place)
    with pytest.raises(QAMConnectionException, match=re.escape(words)):
        QAMProxy("refused", **place)


@pytest.mark.rabbitmq
@pytest.mark.parametrize("how", ["dict", "context", "url"])
def test_with_the_right_authority_calls_work(
    listeners: TLSListeners, server_id: str, how: str
) -> None:
    # given
    own = {"ca_certs": str(listeners.authority.file)}
    place: dict[str, Any] = {"hostname": "localhost", "port": listeners.port, "ssl": own}
    if how == "context":
        place["ssl"] = ssl.create_default_context(cafile=own["ca_certs"])
    elif how == "url":
        place = {"hostname": f"amqps://guest:guest@localhost:{listeners.port}//", "ssl": own}

    with serving(server_id=server_id, **place), QAMProxy(server_id, timeout=60, **place) as proxy:
        assert proxy.add(2, 3) == 5
        # also what takes many records, each way
        assert len(proxy.echo("x" * 1_000_000)) == 1_000_000


@pytest.mark.rabbitmq
@pytest.mark.parametrize("option", ["system", "stranger"])
def test_an_authority_that_is_not_trusted_is_refused(listeners: TLSListeners, option: str) -> None:
    own = True if option == "system" else {"ca_certs": listeners.stranger.file}

    assert_refused("certificate is not trusted", hostname="localhost", port=listeners.port, ssl=own)


@pytest.mark.rabbitmq
def test_a_certificate_of_another_host_is_refused(listeners: TLSListeners) -> None:
    # given a broker that is reached by an address, while its certificate says localhost
    place = {"hostname": "127.0.0.1", "port": listeners.port}
    own = {"ca_certs": listeners.authority.file}

    assert_refused("does not name '127.0.0.1'", **place, ssl=own)

    # but for who says what it is made out to, or not to look
    QAMServer(server_id="other", **place, ssl=own | {"server_hostname": "localhost"})
    QAMServer(server_id="other", **place, ssl=own | {"check_hostname": False})
    QAMServer(server_id="other", **place, ssl={"cert_reqs": ssl.CERT_NONE})


@pytest.mark.rabbitmq
def test_the_host_is_verified_as_it_was_written_also_in_a_url(listeners: TLSListeners) -> None:
    url = f"amqps://guest:guest@127.0.0.1:{listeners.port}//"

    assert_refused(
        "does not name '127.0.0.1'", hostname=url, ssl={"ca_certs": listeners.authority.file}
    )


@pytest.mark.rabbitmq
def test_an_expired_certificate_is_refused(listeners: TLSListeners) -> None:
    own = {"ca_certs": listeners.authority.file}

    assert_refused("has expired", hostname="localhost", port=listeners.expired_port, ssl=own)


@pytest.mark.rabbitmq
@pytest.mark.parametrize("strict", [True, False, None])
def test_an_authority_that_is_made_carelessly_is_told_where_python_looks(
    listeners: TLSListeners, strict: bool | None
) -> None:
    # given a context that looks, one that does not, and a dict: since Python 3.13 that looks too
    careless = listeners.authority.without_key_usage()
    context = ssl.create_default_context(cafile=careless)
    if strict is not None:
        others = context.verify_flags & ~ssl.VERIFY_X509_STRICT
        context.verify_flags = others | (ssl.VERIFY_X509_STRICT if strict else 0)
    own = {"ca_certs": careless} if strict is None else context
    place: dict[str, Any] = {"hostname": "localhost", "port": listeners.port, "ssl": own}

    # then
    if context.verify_flags & ssl.VERIFY_X509_STRICT:
        assert_refused("without key usage keyCertSign); have it issued again", **place)
    else:
        QAMServer(server_id="careless", **place).close()


@pytest.mark.rabbitmq
def test_tls_on_a_port_without_it_is_told(listeners: TLSListeners) -> None:
    assert_refused("does not speak TLS", hostname="localhost", port=listeners.plain_port, ssl=True)


@pytest.mark.rabbitmq
def test_plain_text_on_a_port_with_tls_is_told(listeners: TLSListeners) -> None:
    assert_refused("speaks TLS; pass ssl=True", hostname="localhost", port=listeners.port)


@pytest.mark.rabbitmq
def test_a_client_without_the_certificate_that_is_wanted_is_told(listeners: TLSListeners) -> None:
    own = {"ca_certs": listeners.authority.file}

    port = listeners.client_certificate_port

    # The broker's alert may be overtaken by the end of the connection: both say the same.
    assert_refused("'certfile' and 'keyfile'", hostname="localhost", port=port, ssl=own)


@pytest.mark.rabbitmq
def test_a_client_with_the_certificate_that_is_wanted_can_call(
    listeners: TLSListeners, server_id: str
) -> None:
    own = {
        "ca_certs": listeners.authority.file,
        "certfile": listeners.client.certificate,
        "keyfile": listeners.client.key,
    }
    place: dict[str, Any] = {
        "hostname": "localhost",
        "port": listeners.client_certificate_port,
        "ssl": own,
    }

    with serving(server_id=server_id, **place), QAMProxy(server_id, timeout=60, **place) as proxy:
        assert proxy.add(2, 3) == 5
