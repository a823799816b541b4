"""What is promised in `docs/topics/security.md`, from one side of a call to the other."""

import ipaddress
import math
import pickle
import re
import shlex
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import amqp
import msgpack
import pytest

import qam
from qam import QAMConnectionException, QAMMethodNotFoundException, QAMProxy
from qam._protocol.entities import reply_exchange, request_binding, siblings_binding
from qam._serialization.serializers import get_serializer
from qam._serialization.trust import EVERYWHERE
from tests.conftest import Broker
from tests.support.rabbitmq import RabbitMQNode
from tests.support.service import Service, make_server, serving
from tests.support.strangers import CONTENT_TYPES
from tests.support.waiting import until

PAGE = Path(__file__).parents[2] / "docs" / "topics" / "security.md"


# --- an application's own classes -----------------------------------------------------


class ComplexType:
    """What an application sends, as in the original's test of complex_type_method."""

    def __init__(self, value: int) -> None:
        self.value = value


class FormError(Exception):
    """What a method raises; only raised, so it needs no trust."""


@pytest.fixture
def trusting(monkeypatch: pytest.MonkeyPatch) -> None:
    """For one test only: what is trusted stays so for the life of a process."""
    monkeypatch.setattr(EVERYWHERE, "_things", dict(EVERYWHERE._things))
    qam.trust(ComplexType)


@pytest.fixture
def proxy_of_complex_types(broker: Broker, server_id: str) -> Iterator[QAMProxy]:
    with make_server(Service(), server_id=server_id, **broker.kwargs) as server:

        @server.register_function
        def complex_type_method(complex_type: ComplexType) -> ComplexType:
            complex_type.value += 1
            return complex_type

        server.register_function(ComplexType, "make")
        server.start()
        with QAMProxy(server_id, timeout=60, **broker.kwargs) as proxy:
            yield proxy


@pytest.mark.usefixtures("trusting")
def test_an_object_of_a_trusted_class_travels_both_ways(proxy_of_complex_types: QAMProxy) -> None:
    result = proxy_of_complex_types.complex_type_method(ComplexType(3))

    assert type(result) is ComplexType
    assert result.value == 4


def test_an_object_of_a_class_that_is_not_trusted_is_refused_by_name_on_both_sides(
    proxy_of_complex_types: QAMProxy, caplog: pytest.LogCaptureFixture
) -> None:
    name = f"{__name__}.ComplexType"
    words = f"does not trust {name}: call qam.trust({name}) in the"

    # when it is an argument, then the server refuses it, and nothing runs
    with pytest.raises(qam.QAMSerializationException) as request:
        proxy_of_complex_types.complex_type_method(ComplexType(3))
    assert f"{words} server's process" in str(request.value)
    assert request.value.executed == "no"
    assert words in caplog.text

    # when it is a result, then the proxy does, and the method ran
    caplog.clear()
    with pytest.raises(qam.QAMSerializationException) as result:
        proxy_of_complex_types.make(3)
    assert f"{words} client's process" in str(result.value)
    assert result.value.executed == "yes"
    assert words in caplog.text


def test_trust_can_be_for_one_side_alone(broker: Broker, server_id: str) -> None:
    # given a server that trusts the class, and a proxy that does not
    kwargs: dict[str, Any] = {"server_id": server_id, **broker.kwargs}
    with make_server(Service(), trusted=[ComplexType], **kwargs) as server:
        server.register_function(lambda each: each.value, "value_of")
        server.register_function(ComplexType, "make")
        server.start()
        with QAMProxy(timeout=60, **kwargs) as proxy:
            assert proxy.value_of(ComplexType(3)) == 3
            with pytest.raises(qam.QAMSerializationException, match="does not trust"):
                proxy.make(3)


# --- the serializers --------------------------------------------------------------------


def test_msgpack_peers_understand_each_other(broker: Broker, server_id: str) -> None:
    kwargs: dict[str, Any] = {"serializer": "msgpack", "server_id": server_id, **broker.kwargs}
    with make_server(Service(), **kwargs) as server:

        @server.register_function
        def refuse() -> None:
            raise FormError("a", 1)

        server.start()
        with QAMProxy(timeout=60, **kwargs) as proxy:
            value = {"text": "ä", "bytes": b"\xff", "list": [1, 2.5, None], 7: True}
            assert proxy.echo(value) == value
            assert proxy.add(a=2, b=3) == 5
            with pytest.raises(ValueError, match="why"):
                proxy.fail("why", 7)
            # an exception that is no builtin is not looked for
            with pytest.raises(qam.RemoteException, match=r"FormError: \('a', 1\)"):
                proxy.refuse()
            with pytest.raises(qam.QAMSerializationException, match="encoded as msgpack"):
                proxy.echo(object())


@pytest.mark.parametrize("mine", ["json", "msgpack"])
def test_a_peer_decodes_nothing_but_its_own_serializer(
    broker: Broker, server_id: str, mine: str, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        serving(server_id=server_id, serializer=mine, **broker.kwargs) as service,
        QAMProxy(server_id, timeout=60, serializer="pickle", **broker.kwargs) as proxy,
        pytest.raises(
            qam.QAMSerializationException, match="configure the same serializer on both sides"
        ),
    ):
        proxy.add(1, 2)
    assert service.runs == []
    assert f"only {mine}" in caplog.text


# --- what is offered ----------------------------------------------------------------------


def test_an_instance_inside_an_instance_is_reached_only_by_its_own_registration(
    broker: Broker, server_id: str
) -> None:
    class Inner:
        def ping(self) -> str:
            return "pong"

    class Outer:
        def __init__(self) -> None:
            self.inner = Inner()

        def ping(self) -> str:
            return "outer pong"

    kwargs: dict[str, Any] = {"server_id": server_id, **broker.kwargs}
    with make_server(Service(), **kwargs) as server:
        outer = Outer()
        server.register_class(outer, "outer")
        server.start()
        with QAMProxy(timeout=60, **kwargs) as proxy:
            assert proxy.outer.ping() == "outer pong"
            for name in ("outer.inner.ping", "outer.__init__", "outer.ping.__call__"):
                with pytest.raises((QAMMethodNotFoundException, AttributeError)):
                    proxy[name]()
            # and once it is registered
            server.register_class(outer.inner, "outer.inner")
            assert proxy.outer.inner.ping() == "pong"


# --- what a method is given ---------------------------------------------------------------


def lists_in_each_other(depth: int) -> bytes:
    """A pickle of a list in a list, and so on."""
    return b"\x80\x04" + b"]" * depth + b"a" * (depth - 1) + b"."


def list_of_itself() -> list[Any]:
    inner: list[Any] = []
    inner.append(inner)
    return inner


def shared_lists(depth: int) -> list[Any]:
    """A list that has the one below twice, and so on: its text doubles with each."""
    inner: list[Any] = []
    for _ in range(depth):
        inner = [inner, inner]
    return inner


#: By how the page calls it: how each serializer carries it, where it does.
ODD_VALUES: dict[str, dict[str, bytes]] = {
    "a text with half a character": {
        "pickle": pickle.dumps("\ud800"),
        "json": b'"\\ud800"',
    },
    "a whole number of more than 4,300 digits": {"pickle": pickle.dumps(10**5000)},
    "a Decimal with a large exponent": {
        "pickle": pickle.dumps(Decimal("1e999999")),
        "json": get_serializer("json").encode(Decimal("1e999999")),
    },
    "NaN": {
        "pickle": pickle.dumps(math.nan),
        "json": b"NaN",
        "msgpack": msgpack.packb(math.nan),
    },
    "lists 500 deep": {
        "pickle": lists_in_each_other(500),
        "json": b"[" * 500 + b"]" * 500,
        "msgpack": b"\x91" * 500 + b"\xc0",
    },
    "lists 100,000 deep": {"pickle": lists_in_each_other(100_000)},
    "a list that contains itself": {"pickle": pickle.dumps(list_of_itself())},
    "a list that contains another one twice, and so on": {"pickle": pickle.dumps(shared_lists(40))},
    "a network of 2**128 addresses": {"pickle": pickle.dumps(ipaddress.ip_network("::/0"))},
    "a range of a thousand million": {"pickle": pickle.dumps(range(10**9 - 1))},
}
#: What is of the type that arrives.
ODD_KINDS: dict[str, object] = {
    "a text with half a character": "",
    "a whole number of more than 4,300 digits": 0,
    "a Decimal with a large exponent": Decimal(0),
    "NaN": 0.0,
    "lists 500 deep": [],
    "lists 100,000 deep": [],
    "a list that contains itself": [],
    "a list that contains another one twice, and so on": [],
    "a network of 2**128 addresses": ipaddress.ip_network("::/0"),
    "a range of a thousand million": range(0),
}
#: What other serializers make of the same.
REFUSED_BODIES: dict[tuple[str, str], bytes] = {
    ("msgpack", "a text with half a character"): b"\xa3\xed\xa0\x80",
    ("json", "a whole number of more than 4,300 digits"): b"1" * 5000,
    ("json", "lists 100,000 deep"): b"[" * 100_000 + b"]" * 100_000,
    ("msgpack", "lists 100,000 deep"): b"\x91" * 100_000 + b"\xc0",
}
ARRIVING = [(name, serializer) for name, bodies in ODD_VALUES.items() for serializer in bodies]


@pytest.mark.parametrize(("name", "serializer"), ARRIVING)
def test_a_method_may_be_given_what_the_page_says(name: str, serializer: str) -> None:
    body = ODD_VALUES[name][serializer]

    # it costs its sender little, and arrives as what it is
    assert len(body) < 300_000
    assert type(get_serializer(serializer).decode(body)) is type(ODD_KINDS[name])
    # and the page says so
    row = next(row for row in argument_rows() if row[0].startswith(name))
    assert row[1 + SERIALIZERS.index(serializer)] == "yes"


@pytest.mark.parametrize(("serializer", "name"), REFUSED_BODIES)
def test_a_method_is_not_given_what_its_serializer_has_not(serializer: str, name: str) -> None:
    with pytest.raises((ValueError, RecursionError)):
        get_serializer(serializer).decode(REFUSED_BODIES[serializer, name])


def test_what_the_page_says_of_arguments_is_whole() -> None:
    said = {
        (next(name for name in ODD_VALUES if row[0].startswith(name)), serializer)
        for row in argument_rows()
        for serializer, whether in zip(SERIALIZERS, row[1:], strict=False)
        if whether == "yes"
    }
    assert said == set(ARRIVING)


def test_to_show_such_an_argument_raises() -> None:
    decode = get_serializer("pickle").decode
    with pytest.raises(ValueError, match="4300 digits"):
        str(decode(ODD_VALUES["a whole number of more than 4,300 digits"]["pickle"]))
    with pytest.raises(RecursionError):
        repr(decode(ODD_VALUES["lists 100,000 deep"]["pickle"]))
    with pytest.raises(UnicodeEncodeError):
        decode(ODD_VALUES["a text with half a character"]["pickle"]).encode()


SERIALIZERS = ["pickle", "json", "msgpack"]


def argument_rows() -> list[list[str]]:
    """The rows of the page's table of arguments, cell by cell."""
    text = PAGE.read_text(encoding="utf-8").split("| an argument |")[1].split("\n\n")[0]
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("| ") and not line.startswith("| ---")
    ]


# --- least privilege ------------------------------------------------------------------------


def permission_lines() -> list[list[str]]:
    """The lines of the page that set permissions, taken apart."""
    text = PAGE.read_text(encoding="utf-8")
    return [shlex.split(line) for line in re.findall(r"^rabbitmqctl (.*)$", text, re.MULTILINE)]


@pytest.fixture
def users(rabbitmq_node: RabbitMQNode) -> Iterator[dict[str, dict[str, Any]]]:
    """The page's users, with just the permissions that it gives them, in a vhost of their own."""
    vhost = f"qam-{uuid.uuid4().hex}"
    rabbitmq_node.add_vhost(vhost)
    names = []
    for command, *arguments in permission_lines():
        if command == "add_user":
            name, _ = arguments
            names.append(name)
            rabbitmq_node.add_user(name, "secret")
        else:
            assert (command, *arguments[:2]) == ("set_permissions", "-p", "/")
            rabbitmq_node.permit(*arguments[2:], vhost=vhost)
    place = {"hostname": rabbitmq_node.host, "port": rabbitmq_node.port, "vhost": vhost}
    yield {name: {**place, "username": name, "password": "secret"} for name in names}
    for name in names:
        rabbitmq_node.delete_user(name)
    rabbitmq_node.delete_vhost(vhost)


@pytest.mark.rabbitmq
def test_both_sides_work_with_the_permissions_of_the_page(
    users: dict[str, dict[str, Any]],
) -> None:
    server, client = users["qamserver"], users["alice"]
    with (
        serving(server_id="qamserver", **server),
        QAMProxy("qamserver", timeout=60, client_id="alice", **client) as proxy,
        QAMProxy("qamserver", timeout=60, **users["anybody"]) as nobodys_proxy,
    ):
        assert proxy.add(2, 3) == 5
        assert nobodys_proxy.add(2, 4) == 6
        results: list[Any] = []
        uids = [proxy.callback(results.append).add(n, 0) for n in range(50)]
        while any(proxy.get_callback_state(uid) != 2 for uid in uids):
            pass
        assert sorted(results) == list(range(50))


@pytest.mark.rabbitmq
def test_with_the_permissions_of_the_page_nobody_can_do_the_others_part(
    users: dict[str, dict[str, Any]],
) -> None:
    server, client = users["qamserver"], users["alice"]

    # a client can't serve, nor declare the exchange of a server that never ran
    with pytest.raises(QAMConnectionException, match="'alice' may not declare it"):
        qam.QAMServer(server_id="qamserver", **client)
    with pytest.raises(QAMConnectionException, match="a server declares it"):
        QAMProxy("qamserver", client_id="alice", **client)

    with serving(server_id="qamserver", **server):
        # nor serve once it is there
        with pytest.raises(QAMConnectionException, match="ACCESS_REFUSED"):
            qam.QAMServer(server_id="qamserver", **client)
        # nor have a reply queue in another's name
        with pytest.raises(QAMConnectionException, match="ACCESS_REFUSED"):
            QAMProxy("qamserver", client_id="bob", **client)
        for client_id in ("bob", "alice"):
            with pytest.raises(QAMConnectionException, match="ACCESS_REFUSED"):
                QAMProxy("qamserver", client_id=client_id, **users["anybody"])
        # which is told, also who has a random name and may have none
        with pytest.raises(QAMConnectionException, match="pass client_id= where") as told:
            QAMProxy("qamserver", **client)
        assert "lost" not in str(told.value)
        assert told.value.executed == "no"
        # and a server is no client
        with pytest.raises(QAMConnectionException, match="ACCESS_REFUSED"):
            QAMProxy("qamserver", client_id="alice", **server)


Act = Callable[[amqp.Channel], object]
ALICES, BOBS = "alice.0f_client_queue", "bob.0f_client_queue"
ANYBODYS = f"{'a' * 32}.{'b' * 32}_client_queue"
REQUESTS, WORDS = request_binding("qamserver"), siblings_binding("qamserver", "x")
REPLIES = reply_exchange("qamserver")


def declare(queue: str) -> Act:
    return lambda channel: channel.queue_declare(queue, durable=True, auto_delete=False)


def bind(queue: str, exchange: str, key: str = "a key") -> Act:
    return lambda channel: channel.queue_bind(queue, exchange, key)


def publish(exchange: str, key: str = "a key") -> Act:
    def act(channel: amqp.Channel) -> None:
        channel.confirm_select()
        channel.basic_publish_confirm(amqp.Message("x"), exchange, key)

    return act


#: In this order: who does what, and whether the broker lets them.
ACTS: list[tuple[str, str, Act, bool]] = [
    # a client has a queue, calls the server, and reads what it is answered
    ("alice", "declares a queue of hers", declare(ALICES), True),
    ("alice", "sends a request", publish(REQUESTS.exchange), True),
    ("alice", "binds her queue to replies", bind(ALICES, REPLIES), True),
    # but no other queue, and nothing of a server's
    ("alice", "declares a queue of bob's", declare(BOBS), False),
    ("alice", "sends a reply", publish(REPLIES), False),
    ("alice", "sends a word of a server", publish(WORDS.exchange), False),
    ("alice", "writes to a queue past its exchange", publish("", REQUESTS.queue), False),
    ("alice", "reads requests", lambda channel: channel.basic_get(REQUESTS.queue), False),
    ("alice", "drops requests", lambda channel: channel.queue_purge(REQUESTS.queue), False),
    ("alice", "deletes the requests", lambda channel: channel.queue_delete(REQUESTS.queue), False),
    ("alice", "deletes an exchange", lambda ch: ch.exchange_delete(REQUESTS.exchange), False),
    ("alice", "has a copy of requests", bind(ALICES, *REQUESTS.route), False),
    ("alice", "has a copy of words", bind(ALICES, *WORDS.route), False),
    # those who share an account share their queues
    ("anybody", "declares a queue", declare(ANYBODYS), True),
    ("anybody", "reads a queue that is known", lambda ch: ch.basic_get(ANYBODYS), True),
    ("anybody", "deletes a queue that is known", lambda ch: ch.queue_delete(ANYBODYS), True),
    ("anybody", "reads a queue of alice's", lambda ch: ch.basic_get(ALICES), False),
    # and a server writes to clients, and reads nothing of theirs
    ("qamserver", "sends a reply", publish(REPLIES), True),
    ("qamserver", "reads a queue of alice's", lambda ch: ch.basic_get(ALICES), False),
    ("qamserver", "deletes a queue of alice's", lambda ch: ch.queue_delete(ALICES), False),
    ("qamserver", "has a copy of replies", bind(REQUESTS.queue, REPLIES), False),
    ("qamserver", "serves another id", declare(request_binding("other").queue), False),
]


def connected(place: dict[str, Any]) -> Any:
    connection = amqp.Connection(
        host=f"{place['hostname']}:{place['port']}",
        userid=place["username"],
        password=place["password"],
        virtual_host=place["vhost"],
    )
    connection.connect()
    return closing(connection)


@pytest.mark.rabbitmq
def test_each_account_of_the_page_may_do_what_its_part_needs_and_no_more(
    users: dict[str, dict[str, Any]],
) -> None:
    with serving(server_id="qamserver", **users["qamserver"]):
        for user, what, act, allowed in ACTS:
            with connected(users[user]) as connection:
                try:
                    act(connection.channel())
                    done = True
                except amqp.AccessRefused:
                    done = False
            assert done is allowed, f"{user} {what}"
        with QAMProxy("qamserver", timeout=60, client_id="alice", **users["alice"]) as proxy:
            assert proxy.add(2, 3) == 5


@pytest.mark.rabbitmq
def test_replies_that_a_client_leads_back_to_the_server_end_there(
    rabbitmq_node: RabbitMQNode, users: dict[str, dict[str, Any]]
) -> None:
    # given a client that binds the exchange of the requests to that of the replies
    key = REQUESTS.routing_key
    content = {"content_type": CONTENT_TYPES["pickle"], "correlation_id": "x", "reply_to": key}
    request = {"id": 1, "method_name": "add", "routing_key": key, "params": (1, 2)}
    with (
        serving(server_id="qamserver", **users["qamserver"]) as service,
        connected(users["alice"]) as connection,
        QAMProxy("qamserver", timeout=60, client_id="alice", **users["alice"]) as proxy,
    ):
        channel = connection.channel()
        channel.exchange_bind(REQUESTS.exchange, REPLIES, key)
        channel.confirm_select()
        # when it calls, and then sends what is refused
        for body in (pickle.dumps(request), b"no pickle"):
            content["correlation_id"] += "x"
            channel.basic_publish_confirm(amqp.Message(body, **content), *REQUESTS.route)
        # then the reply is no request, and nobody answers it
        until(lambda: service.runs == [(1, 2)])
        assert proxy.add(2, 3) == 5
        vhost = users["alice"]["vhost"]
        until(lambda: rabbitmq_node.queues(vhost)[REQUESTS.queue] == 0)
    assert service.runs == [(1, 2), (2, 3)]
