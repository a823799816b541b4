"""What is promised in `docs/topics/security.md`, from one side of a call to the other."""

import re
import shlex
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import qam
from qam import QAMConnectionException, QAMMethodNotFoundException, QAMProxy
from qam._serialization.trust import EVERYWHERE
from tests.conftest import Broker
from tests.support.rabbitmq import RabbitMQNode
from tests.support.service import Service, make_server, serving

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
    words = f"{__name__}.ComplexType is not trusted; call qam.trust({__name__}.ComplexType)"

    # when it is an argument, then the server refuses it, and nothing runs
    with pytest.raises(qam.QAMSerializationException) as request:
        proxy_of_complex_types.complex_type_method(ComplexType(3))
    assert words in str(request.value)
    assert request.value.executed == "no"
    assert words in caplog.text

    # when it is a result, then the proxy does, and the method ran
    caplog.clear()
    with pytest.raises(qam.QAMSerializationException) as result:
        proxy_of_complex_types.make(3)
    assert words in str(result.value)
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
            with pytest.raises(qam.QAMSerializationException, match="not trusted"):
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
        pytest.raises(qam.QAMSerializationException, match="configure both sides alike"),
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
    with pytest.raises(QAMConnectionException, match="its server does that"):
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
        # and a server is no client
        with pytest.raises(QAMConnectionException, match="ACCESS_REFUSED"):
            QAMProxy("qamserver", client_id="alice", **server)
