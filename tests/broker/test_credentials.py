import string
from contextlib import suppress
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qam._broker.credentials import credentials_of
from qam._broker.endpoint import common_user
from qam.amqp_credentials import AMQPCredentials

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
host_names = st.text(string.ascii_lowercase + string.digits + "-.", min_size=1).filter(
    lambda name: name[0].isalpha()
)


def test_the_defaults_are_those_of_rabbitmq() -> None:
    credentials = AMQPCredentials()

    assert credentials == AMQPCredentials("localhost", 5672, "guest", "guest", "/", False)
    assert credentials.resolved() is credentials
    assert not credentials.is_memory


def test_its_text_says_where_and_neither_who_nor_the_password() -> None:
    credentials = AMQPCredentials("broker", 1234, "me", "secret", "shop")

    assert str(credentials) == "broker:1234, vhost 'shop'"


def test_its_repr_does_not_show_the_password() -> None:
    credentials = AMQPCredentials("broker", 1234, "me", "secret", "shop")

    assert "me" in repr(credentials)
    assert "secret" not in repr(credentials)


def test_neither_text_nor_repr_of_a_url_shows_the_password() -> None:
    credentials = AMQPCredentials("amqp://me:secret@broker:1234/shop")

    for each in (credentials, credentials.resolved()):
        assert "secret" not in str(each)
        assert "secret" not in repr(each)


@given(host_names, st.integers(1, 65535), texts, texts, texts)
def test_what_is_quoted_into_a_url_comes_out_again(
    hostname: str, port: int, username: str, password: str, vhost: str
) -> None:
    # given
    user, word, virtual = (quote(part, safe="") for part in (username, password, vhost))
    url = f"amqp://{user}:{word}@{hostname}:{port}/{virtual}"

    # when
    credentials = AMQPCredentials(url).resolved()

    # then
    assert credentials == AMQPCredentials(hostname, port, username, password, vhost, False)
    assert credentials.resolved() == credentials


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("amqp://", AMQPCredentials()),
        ("amqp://broker", AMQPCredentials("broker")),
        ("amqp://broker:1", AMQPCredentials("broker", 1)),
        ("amqp://broker/", AMQPCredentials("broker")),
        ("amqp://broker//", AMQPCredentials("broker")),
        ("amqp://broker/%2F", AMQPCredentials("broker")),
        ("amqp://broker/a", AMQPCredentials("broker", vhost="a")),
        ("amqp://broker//a", AMQPCredentials("broker", vhost="/a")),
        ("amqp://me@broker", AMQPCredentials("broker", username="me")),
        ("amqp://[::1]:77", AMQPCredentials("::1", 77)),
        ("amqps://broker", AMQPCredentials("broker", 5671, ssl=True)),
        ("amqps://broker:5672", AMQPCredentials("broker", 5672, ssl=True)),
    ],
)
def test_what_a_url_leaves_out_is_the_default(url: str, expected: AMQPCredentials) -> None:
    assert AMQPCredentials(url).resolved() == expected


def test_tls_may_be_asked_for_beside_a_url() -> None:
    assert AMQPCredentials("amqp://broker", ssl=True).resolved().ssl is True


def test_the_broker_in_this_process_is_told_by_its_scheme() -> None:
    credentials = AMQPCredentials("memory://shop")

    assert credentials.is_memory
    assert credentials.resolved() is credentials
    assert str(credentials) == "memory://shop"


@pytest.mark.parametrize("url", ["http://broker", "redis://broker", "://broker", "amqp+ssl://b"])
def test_another_scheme_is_refused_with_its_name(url: str) -> None:
    with pytest.raises(ValueError, match=r"hostname: the scheme .* is not supported"):
        AMQPCredentials(url).resolved()


@pytest.mark.parametrize("url", ["amqp://broker", "amqps://broker", "memory://broker"])
@pytest.mark.parametrize(
    ("name", "value"), [("port", 1), ("username", "me"), ("password", "secret"), ("vhost", "shop")]
)
def test_a_url_and_a_second_answer_beside_it_are_refused(url: str, name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"so {name} must be a part of it") as refused:
        AMQPCredentials(url, **{name: value}).resolved()

    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("port", ["x", "70000", "-1"])
def test_a_url_without_a_valid_port_is_refused_without_its_password(port: str) -> None:
    with pytest.raises(ValueError, match=r"hostname: the amqp:// URL has no valid port") as refused:
        AMQPCredentials(f"amqp://me:secret@broker:{port}/").resolved()

    assert "secret" not in str(refused.value)
    assert refused.value.__suppress_context__


@pytest.mark.parametrize("query", ["heartbeat=5", "hostname=other", "ssl_cert_reqs=CERT_NONE"])
def test_a_query_in_a_url_is_refused_and_not_swallowed(query: str) -> None:
    with pytest.raises(ValueError, match="hostname"):
        AMQPCredentials(f"amqps://broker/shop?{query}").resolved()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("hostname", ""),
        ("hostname", None),
        ("hostname", b"broker"),
        ("port", "5672"),
        ("port", True),
        ("port", 5672.0),
        ("username", None),
        ("password", b"secret"),
        ("vhost", 1),
    ],
)
def test_an_argument_of_a_wrong_type_is_named(name: str, value: Any) -> None:
    with pytest.raises(TypeError, match=name) as refused:
        AMQPCredentials(**{name: value})

    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("port", [0, -1, 65536, 5672 + 65536])
def test_a_port_that_does_not_exist_is_refused(port: int) -> None:
    with pytest.raises(ValueError, match="port"):
        AMQPCredentials("broker", port).resolved()


def test_each_host_is_an_endpoint_of_its_own() -> None:
    credentials = AMQPCredentials(
        ["one", "two:7", "amqps://three"], ssl=True, heartbeat=5, password="guest"
    )

    endpoints = credentials.endpoints()

    assert [(each.host, each.port) for each in endpoints] == [
        ("one", 5672),
        ("two", 7),
        ("three", 5671),
    ]
    assert all(each.tls is not None for each in endpoints)
    assert {(each.vhost, each.username, each.password) for each in endpoints} == {
        ("/", "guest", "guest")
    }
    assert {each.heartbeat for each in endpoints} == {5}
    assert str(credentials) == " or ".join(map(str, endpoints))


def test_an_endpoint_does_not_show_the_password() -> None:
    [endpoint] = AMQPCredentials("broker", 1234, "me", "secret", "shop").endpoints()

    assert "secret" not in repr(endpoint)
    assert "secret" not in str(endpoint)
    assert str(endpoint) == "broker:1234, vhost 'shop'"
    assert endpoint.password == "secret"


# --- what people write -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hostname", "host", "port"),
    [
        ("[::1]:5673", "::1", 5673),
        ("[::1]", "::1", 5672),
        ("::1", "::1", 5672),
        ("[fe80::1%eth0]:7", "fe80::1%eth0", 7),
        ("amqp://[::1]:5673/", "::1", 5673),
        ("127.0.0.1:7", "127.0.0.1", 7),
    ],
)
def test_an_address_of_version_6_may_have_a_port(hostname: str, host: str, port: int) -> None:
    [endpoint] = AMQPCredentials(hostname).endpoints()

    assert (endpoint.host, endpoint.port) == (host, port)
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    assert str(endpoint) == str(AMQPCredentials(hostname).resolved()) == f"{place}, vhost '/'"


@pytest.mark.parametrize("hostname", ["[::1", "[::1]:", "[::1]5672", "[]:5672", "host:", "host:x"])
def test_an_address_with_half_a_port_is_refused(hostname: str) -> None:
    with pytest.raises(ValueError, match="needs a port number after the ':'"):
        AMQPCredentials(hostname).endpoints()


@pytest.mark.parametrize("scheme", ["AMQP", "Amqps", "MEMORY", "aMqP"])
def test_a_scheme_may_be_written_in_capitals(scheme: str) -> None:
    written, lower = AMQPCredentials(f"{scheme}://Broker"), f"{scheme.lower()}://Broker"

    assert written == AMQPCredentials(lower)
    assert list(map(str, written.endpoints())) == list(map(str, AMQPCredentials(lower).endpoints()))
    assert written.is_memory is (scheme == "MEMORY")


@pytest.mark.parametrize(
    "hostname",
    [
        *("one;two", "one,two", "one:5672,two:5672", "one, two"),
        *("amqp://one;amqp://two", "amqp://one,two/shop", "amqp://me:secret@one,two"),
        *("amqp://me:secret@one/v;amqp://me:secret@two/v", "amqp://one:5672;two:5672/"),
        "amqp://one, amqp://two",
    ],
)
def test_several_hosts_in_one_text_are_told_to_be_a_list(hostname: str) -> None:
    with pytest.raises(ValueError, match=r"several hosts are a list") as refused:
        AMQPCredentials(hostname).endpoints()

    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("hostname", [" broker", "broker\n", "amqp://broker/\n", "bro\tker", "a b"])
def test_spaces_and_line_breaks_around_a_host_are_refused(hostname: str) -> None:
    with pytest.raises(ValueError, match="space"):
        AMQPCredentials(hostname).endpoints()


@pytest.mark.parametrize("url", ["amqp://broker:0", "amqps://me:secret@broker:0/shop", "broker:0"])
def test_port_0_is_refused_and_not_replaced(url: str) -> None:
    with pytest.raises(ValueError, match=r"port .*must be 1 to 65535, not 0"):
        AMQPCredentials(url).endpoints()


UNQUOTED = ["se#cret", "se?cret", "se[cret", "se]cret", "se/cret", "12#cret", "12?cret", "#[?/]"]


@pytest.mark.parametrize("password", UNQUOTED)
@pytest.mark.parametrize("rest", ["@broker", "@broker:5672/shop", "@broker/"])
def test_a_password_with_special_characters_is_told_to_be_quoted(password: str, rest: str) -> None:
    credentials = AMQPCredentials(f"amqp://me:{password}{rest}")

    with pytest.raises(ValueError, match=r"have to be quoted, as urllib\.parse\.quote") as refused:
        credentials.resolved()

    for text in (str(refused.value), repr(credentials), str(credentials)):
        assert password not in text
        assert "cret" not in text
    assert refused.value.__suppress_context__ or refused.value.__context__ is None


@given(texts.map("s3cr3t{}s3cr3t".format))
def test_no_password_ever_shows_however_it_is_written(password: str) -> None:
    for written in (password, quote(password, safe="")):
        texts = list[str]()
        with suppress(ValueError):
            credentials = AMQPCredentials(f"amqp://me:{written}@broker/shop")
            texts = [repr(credentials), str(credentials)]
            [endpoint] = credentials.endpoints()
            texts += [repr(endpoint), str(endpoint), repr(credentials.resolved())]
        assert not any("s3cr3t" in text for text in texts)


@given(texts)
def test_what_is_quoted_is_always_the_password(password: str) -> None:
    [endpoint] = AMQPCredentials(f"amqp://me:{quote(password, safe='')}@broker").endpoints()

    assert (endpoint.host, endpoint.password) == ("broker", password)


@pytest.mark.parametrize(
    ("hosts", "user"),
    [
        ("one", "me"),
        (["one", "two"], "me"),
        ("memory://name", "guest"),
        (["amqp://ann:a@one", "amqp://ann:b@two"], "ann"),
        (["amqp://ann:a@one", "amqp://bob:b@two"], None),
    ],
    ids=str,
)
def test_the_user_is_known_if_it_is_the_same_at_all_hosts(hosts: Any, user: str | None) -> None:
    is_url = "://" in str(hosts)
    credentials = AMQPCredentials(hosts) if is_url else AMQPCredentials(hosts, username="me")
    assert common_user(credentials.endpoints()) == user


# --- given as one, or by single arguments ------------------------------------


def test_credentials_are_those_that_were_given_or_else_the_single_arguments() -> None:
    given = AMQPCredentials("here", username="ann")

    assert credentials_of(given, AMQPCredentials()) == given
    assert credentials_of(None, AMQPCredentials("amqp://there:1234")) == AMQPCredentials(
        "there", 1234
    )


def test_credentials_and_single_arguments_are_not_mixed() -> None:
    beside = AMQPCredentials("there", vhost="shop")

    with pytest.raises(TypeError, match="credentials: hostname, vhost can't be passed besides"):
        credentials_of(AMQPCredentials("here"), beside)


def test_what_are_no_credentials_is_refused() -> None:
    with pytest.raises(TypeError, match="credentials must be AMQPCredentials, not dict"):
        credentials_of({}, AMQPCredentials())  # type: ignore[arg-type]


@pytest.mark.parametrize("hostname", [5, None, [5]], ids=["int", "none", "int in a list"])
def test_a_host_that_is_no_text_is_refused(hostname: Any) -> None:
    with pytest.raises(TypeError, match="hostname"):
        AMQPCredentials(hostname)


def test_a_broker_in_this_process_is_none_of_several_hosts() -> None:
    several = AMQPCredentials(["memory://a", "here"])

    with pytest.raises(ValueError, match="can't be one of several hosts"):
        several.endpoints()
