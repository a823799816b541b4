"""Who makes a call: the user whom RabbitMQ has verified, however often the request is sent."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from qam import CurrentCall, QAMConnectionException, QAMProxy, QAMServer, current_call, send
from qam._protocol.entities import request_binding
from qam._protocol.properties import GIVEN_BACK, RESENT, RUNS
from tests.conftest import Broker
from tests.support.forwarder import Forwarder
from tests.support.processes import ServerProcess, runs
from tests.support.rabbitmq import RabbitMQNode
from tests.support.routes import Routes
from tests.support.strangers import CONTENT_TYPES, Stranger, encode
from tests.support.waiting import finish, until

LONG = 60.0
METADATA = {"trace": "a1", "x": ""}
Place = dict[str, Any]


@pytest.fixture
def places(rabbitmq_node: RabbitMQNode, server_id: str) -> Iterator[dict[str, Place]]:
    """Where a server and two clients connect, each as a user of its own."""
    places = {}
    for name in ("server", "ann", "bob"):
        user = f"{name}-{server_id}"
        rabbitmq_node.add_user(user, "secret")
        rabbitmq_node.permit(user, ".*", ".*", ".*")
        places[name] = {
            "hostname": rabbitmq_node.host,
            "port": rabbitmq_node.port,
            "username": user,
            "password": "secret",
        }
    yield places
    for place in places.values():
        rabbitmq_node.delete_user(place["username"])


@pytest.fixture(autouse=True)
def no_channel_is_closed(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fails a test in which RabbitMQ closes a channel of the library for a wrong user."""
    yield
    assert [each for each in caplog.messages if "PRECONDITION" in each or "user_id" in each] == []


Seen = tuple[str | None, dict[str, str], set[str]]


def seen(*args: Any) -> Seen:
    """The user and the metadata of this call, and the headers that servers and clients add."""
    call = current_call()
    assert call is not None
    headers = call._call.delivery.headers
    return call.user, dict(call.metadata), headers.keys() & {GIVEN_BACK, RESENT, RUNS}


def proxy_of(server_id: str, place: Place, **options: Any) -> QAMProxy:
    return QAMProxy(server_id, timeout=LONG, identify=True, metadata=METADATA, **place, **options)


def test_a_client_that_does_not_say_who_it_is_is_nobody(broker: Broker, server_id: str) -> None:
    options: dict[str, Any] = {"server_id": server_id, **broker.kwargs}
    with (
        QAMServer(**options) as server,
        QAMProxy(timeout=LONG, **options) as nobody,
        QAMProxy(timeout=LONG, identify=True, **options) as somebody,
    ):
        server.register_function(seen)
        server.start()
        assert nobody.seen() == (None, {}, set())
        assert somebody.seen() == (broker.username or "guest", {}, set())


def test_nobody_is_the_same_at_hosts_of_different_users(server_id: str) -> None:
    hosts = ["amqp://ann:a@localhost", "amqp://bob:b@localhost"]
    with pytest.raises(ValueError, match="identify"):
        QAMProxy(server_id, hosts, identify=True, connect=False)
    with pytest.raises(TypeError, match="identify"):
        QAMProxy(server_id, "memory://any", identify=1)  # type: ignore[arg-type]


@pytest.mark.rabbitmq
def test_one_user_may_call_and_another_may_not(places: dict[str, Place], server_id: str) -> None:
    ran: list[Any] = []

    def guard(call: CurrentCall, proceed: Callable[[], Any]) -> Any:
        if call.user != places["ann"]["username"]:
            raise PermissionError(f"{call.user} may not")
        return proceed()

    with (
        QAMServer(server_id=server_id, middleware=[guard], **places["server"]) as server,
        proxy_of(server_id, places["ann"]) as ann,
        proxy_of(server_id, places["bob"]) as bob,
        QAMProxy(server_id, timeout=LONG, **places["ann"]) as unsaid,
    ):
        server.register_function(lambda: ran.append(seen()[0]), "note")
        server.start()
        ann.note()
        with pytest.raises(PermissionError, match=f"{places['bob']['username']} may not"):
            bob.note()
        with pytest.raises(PermissionError, match="None may not"):
            unsaid.note()
        send(bob.note)
        ann.note()
    assert ran == [places["ann"]["username"]] * 2


@pytest.mark.rabbitmq
def test_who_says_to_be_another_is_not_believed(places: dict[str, Place], server_id: str) -> None:
    users: list[str | None] = []
    ann, bob = places["ann"]["username"], places["bob"]["username"]
    body = {"id": 1, "method_name": "note", "routing_key": "nobody", "params": []}
    forged = {"content_type": CONTENT_TYPES["json"], "headers": {"x-qam-user": ann}}
    route = request_binding(server_id).route
    with QAMServer(server_id=server_id, serializer="json", **places["server"]) as server:
        server.register_function(lambda: users.append(seen()[0]), "note")
        server.start()
        # when bob puts the name of ann where a server would
        stranger = Stranger(**places["bob"])
        stranger.send(route, encode(body, "json"), {**forged, "user_id": bob})
        stranger.send(route, encode({**body, "id": 2}, "json"), forged)
        # or says to be ann, or the server
        for other in (ann, places["server"]["username"]):
            with pytest.raises(QAMConnectionException, match="user_id"):
                stranger.send(route, encode(body, "json"), {**forged, "user_id": other})
            stranger.close()
            stranger = Stranger(**places["bob"])
        stranger.close()
        # then it is bob, or nobody
        until(lambda: len(users) == 2)
    assert sorted(users, key=str) == [None, bob]


@pytest.mark.rabbitmq
@pytest.mark.timeout(180)
class TestUserAndMetadata:
    def test_survive_that_a_server_gives_the_request_back(
        self, places: dict[str, Place], server_id: str
    ) -> None:
        outcomes: list[Any] = []
        holding, go_on = threading.Event(), threading.Event()

        def hold() -> None:
            holding.set()
            assert go_on.wait(LONG)

        options: dict[str, Any] = {"server_id": server_id, **places["server"]}
        with proxy_of(server_id, places["ann"]) as ann:
            # given a request that waits behind a method that does not end
            with QAMServer(max_workers=1, prefetch=5, **options) as first:
                first.register_function(hold)
                first.start()
                ann.callback(print, print).hold()
                assert holding.wait(LONG)
                ann.callback(outcomes.append, outcomes.append).seen()
                until(lambda: len(first._calls) == 1)
                # when
                first.close(0.1)
                go_on.set()
            with QAMServer(**options) as second:
                second.register_function(seen)
                second.start()
                finish(ann)
        assert outcomes == [(places["ann"]["username"], METADATA, {GIVEN_BACK})]

    def test_survive_that_the_client_sends_it_again(
        self, places: dict[str, Place], server_id: str, way: Forwarder, routes: Routes
    ) -> None:
        account = {name: places["ann"][name] for name in ("username", "password")}
        routes.lead("client's publisher", way.host, way.port, **account)
        with (
            QAMServer(server_id=server_id, **places["server"]) as server,
            proxy_of(server_id, places["ann"]) as ann,
        ):
            server.register_function(seen)
            server.start()
            ann.seen()
            # given a connection that dies with the request
            cut = way.cut_when(lambda chunk, towards_broker: b"the token" in chunk)
            # when
            result = ann.seen("the token")
            assert cut.is_set()
        assert result == (places["ann"]["username"], METADATA, {RESENT})

    def test_survive_that_the_server_is_killed_and_another_runs_it_again(
        self, places: dict[str, Place], server_id: str, tmp_path: Path
    ) -> None:
        journal, outcomes = tmp_path / "journal", list[Any]()
        with proxy_of(server_id, places["ann"]) as ann:
            with ServerProcess(server_id, places["server"], journal) as killed:
                ann.callback(outcomes.append, outcomes.append).hold_again("token")
                until(lambda: runs(journal)["token"] == 1)
                # when
                killed.kill()
            with QAMServer(server_id=server_id, **places["server"]) as server:
                server.register_function(seen, "hold_again", idempotent=True)
                server.start()
                finish(ann)
        assert outcomes == [(places["ann"]["username"], METADATA, {RUNS})]
