import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from typing import Any

import amqp
import pytest
import trustme

from qam._broker import rabbitmq
from qam._broker.connect import connect
from qam._broker.endpoint import Endpoint
from qam._broker.events import Blocked, Cancelled, Confirmed, Event, Refused, Returned, Unroutable
from qam._broker.memory import MemoryConnection
from qam._broker.messages import Delivery, Publish, QueueBinding, Route
from qam._broker.rabbitmq import AMQPConnection
from qam._broker.readiness import _SelectorReadiness
from qam._broker.tls import make_tls
from qam._broker.waker import Waker
from qam._common.deadline import Deadline
from qam.amqp_credentials import HEARTBEAT
from qam.exceptions import QAMConnectionException
from tests.support.descriptors import open_descriptors
from tests.support.endpoints import endpoint_of
from tests.support.rabbitmq import RabbitMQNode, free_ports
from tests.support.reading import read
from tests.support.waiting import until

LONG = 30.0  # seconds; nothing here takes that long unless it is broken


class Peer:
    """A connection with its waker and the events that came."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.connection = connect(endpoint, LONG)
        self.waker = Waker()
        self.came: list[Event] = []

    def close(self) -> None:
        self.connection.close()
        self.waker.close()

    def read_until(self, condition: Callable[[list[Event]], object]) -> list[Event]:
        """Read until *condition* holds for all that came; return that and begin anew."""
        deadline = time.monotonic() + LONG
        while not condition(self.came):
            assert time.monotonic() < deadline, f"no more came than {self.came}"
            self.came += read(self.connection, 1.0, self.waker)
        came, self.came = self.came, []
        return came

    def next(self, count: int = 1) -> list[Event]:
        """The next *count* events."""
        return self.read_until(lambda came: len(came) >= count)

    def deliveries(self, count: int) -> list[Delivery]:
        """The next *count* deliveries; nothing else comes."""
        found = [event for event in self.next(count) if isinstance(event, Delivery)]
        assert len(found) == count
        return found

    def confirmed(self, count: int) -> list[Publish]:
        """The next *count* messages that are confirmed; nothing else comes."""
        found = [
            m
            for event in self.read_until(lambda came: len(settled(came)) >= count)
            for m in settled([event])
        ]
        assert len(found) == count
        return found


def settled(events: list[Event]) -> list[Publish]:
    return [
        message for event in events if isinstance(event, Confirmed) for message in event.messages
    ]


@pytest.fixture
def endpoint(rabbitmq_node: RabbitMQNode) -> Endpoint:
    node = rabbitmq_node
    return endpoint_of(node.host, node.port, node.username, node.password)


@pytest.fixture
def binding(endpoint: Endpoint, server_id: str) -> Iterator[QueueBinding]:
    """A queue with its exchange."""
    binding = QueueBinding(f"{server_id}_q", f"{server_id}_e", f"{server_id}_k")
    connection = connect(endpoint, LONG)
    connection.declare_exchange(binding.exchange)
    connection.declare_queue(binding)
    connection.close()
    yield binding
    with amqp.Connection(f"{endpoint.host}:{endpoint.port}") as cleaner:
        channel = cleaner.channel()
        channel.queue_delete(binding.queue)
        channel.exchange_delete(binding.exchange)


@pytest.fixture
def peer(endpoint: Endpoint) -> Iterator[Peer]:
    before = open_descriptors()
    peer = Peer(endpoint)
    yield peer
    peer.close()
    assert open_descriptors() == before


@pytest.fixture
def other(endpoint: Endpoint) -> Iterator[Peer]:
    other = Peer(endpoint)
    yield other
    other.close()


def message(binding: QueueBinding, body: bytes = b"body", **properties: Any) -> Publish:
    return Publish(binding.route, body, {"delivery_mode": 2, **properties})


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    before = open_descriptors()
    yield
    assert open_descriptors() == before


@contextmanager
def listening(serve: Callable[[socket.socket], None] | None = None) -> Iterator[Endpoint]:
    """Where a peer listens that serves one connection so; None for one that never answers."""
    with no_descriptor_left(), socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(LONG)

        def accept() -> None:
            served, _ = listener.accept()
            with served:
                served.settimeout(LONG)
                assert serve is not None
                serve(served)

        thread = threading.Thread(target=accept) if serve is not None else None
        if thread is not None:
            thread.start()
        yield endpoint_of("127.0.0.1", listener.getsockname()[1])
        if thread is not None:
            thread.join(LONG)
            assert not thread.is_alive()


def until_the_end(served: socket.socket) -> None:
    try:
        while served.recv(65536):
            pass
    except ConnectionResetError:
        pass


# --- connecting -------------------------------------------------------------


def test_the_broker_in_this_process_is_reached_by_its_own_connection() -> None:
    connection = connect(endpoint_of("memory://connection"), LONG)

    assert isinstance(connection, MemoryConnection)
    connection.close()


def refused(endpoint: Endpoint, timeout: float = LONG) -> str:
    """Why connecting fails; it says where and as whom, not by what password."""
    with pytest.raises(QAMConnectionException) as caught:
        connect(endpoint, timeout)
    error = caught.value
    assert error.executed == "no"
    assert error.__cause__ is not None
    text = str(error)
    assert f"{endpoint.host}:{endpoint.port}, vhost {endpoint.vhost!r}" in text
    assert repr(endpoint.username) in text
    assert "secret" not in text
    return text.rpartition(f"as user {endpoint.username!r}: ")[2]


def test_a_wrong_password_is_told(endpoint: Endpoint) -> None:
    wrong = replace(endpoint, password="secret")

    with no_descriptor_left():
        assert refused(wrong) == "access refused; are user name and password right?"


def test_a_wrong_vhost_is_told(endpoint: Endpoint) -> None:
    wrong = replace(endpoint, vhost="nowhere")

    with no_descriptor_left():
        assert (
            refused(wrong) == "the vhost 'nowhere' does not exist, or this user may not access it"
        )


def test_an_unknown_host_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*args: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)

    reason = refused(endpoint_of("no-such-host.invalid"))

    assert reason == "the host name is unknown (Name or service not known)"


def test_a_host_name_that_can_be_none_is_told() -> None:
    with no_descriptor_left():
        assert refused(endpoint_of("a" * 64 + ".invalid"))


def test_that_nothing_listens_is_told() -> None:
    (port,) = free_ports(1)

    with no_descriptor_left():
        reason = refused(endpoint_of("127.0.0.1", port))

    assert reason == "nothing listens there; is the broker running?"


def test_a_peer_that_never_answers_is_given_up_in_time() -> None:
    with listening() as endpoint:
        started = time.monotonic()

        reason = refused(endpoint, timeout=0.3)

        assert 0.3 <= time.monotonic() - started < LONG
        assert reason == "no answer within 0.3 seconds"


def test_a_peer_that_sends_a_little_all_the_time_is_given_up_in_time() -> None:
    stop = threading.Event()

    def trickle(served: socket.socket) -> None:
        served.recv(8)
        served.sendall(b"\x01\x00\x00\x00\x01\xff\xff")
        with suppress(OSError):  # it hangs up
            while not stop.wait(0.02):
                served.send(b"x")

    with listening(trickle) as endpoint:
        try:
            assert refused(endpoint, timeout=0.3) == "no answer within 0.3 seconds"
        finally:
            stop.set()


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-x\r\n", b"\x00" * 9]
)
def test_a_peer_that_speaks_no_amqp_is_told(answer: bytes) -> None:
    def serve(served: socket.socket) -> None:
        served.recv(8)
        served.sendall(answer)
        until_the_end(served)

    with listening(serve) as endpoint:
        assert refused(endpoint) == "the peer does not speak AMQP 0-9-1"


@pytest.mark.parametrize(
    "frame",
    [
        b"\x01\x00\x00\x00\x00\x00\x04\x00\x0a\x00\x0a\xce",  # connection.start without arguments
        b"\x01\x00\x00\x00\x00\x00\x04\x00\x63\x00\x63\xce",  # a method that does not exist
        b"\x01\x00\x00\x00\x00\x00\x00\xce",  # no method at all
        b"\x01\x00\x07\x00\x00\x00\x04\x00\x0a\x00\x0a\xce",  # on a channel that does not exist
        b"\x03\x00\x00\x00\x00\x00\x01x\xce",  # a body before its method
    ],
    ids=["truncated", "unknown", "empty", "channel", "order"],
)
def test_a_peer_whose_frames_make_no_sense_is_told(frame: bytes) -> None:
    def serve(served: socket.socket) -> None:
        served.recv(8)
        served.sendall(frame)
        until_the_end(served)

    with listening(serve) as endpoint:
        assert refused(endpoint, timeout=1.0)


def test_a_peer_that_hangs_up_is_told() -> None:
    def serve(served: socket.socket) -> None:
        served.recv(8)

    with listening(serve) as endpoint:
        assert refused(endpoint) == "the broker closed the connection"


def test_a_peer_without_tls_is_told() -> None:
    def serve(served: socket.socket) -> None:
        served.recv(8)
        served.sendall(b"AMQP\x00\x00\x09\x01")
        until_the_end(served)

    with listening(serve) as endpoint:
        assert refused(replace(endpoint, tls=make_tls(True))).startswith(
            "that port does not speak TLS"
        )


def test_a_certificate_that_nobody_vouches_for_is_told() -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)

    def serve(served: socket.socket) -> None:
        with pytest.raises(ssl.SSLError), context.wrap_socket(served, server_side=True) as tls:
            tls.recv(1)

    with listening(serve) as endpoint:
        reason = refused(replace(endpoint, tls=make_tls(True)))

    assert reason.startswith("TLS failed: the broker's certificate is not trusted (")


def test_an_error_without_words_is_told_by_its_type(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> None:
        raise OSError

    monkeypatch.setattr(socket, "getaddrinfo", fail)

    assert refused(endpoint_of("broker")) == "OSError"


def test_without_the_option_of_the_system_it_connects_as_well(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(socket, "TCP_USER_TIMEOUT", raising=False)

    connect(endpoint, LONG).close()


def test_where_only_a_selector_is_a_rest_is_none(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection: Any = peer.connection
    readiness = _SelectorReadiness(connection._transport.sock)
    monkeypatch.setattr(connection._sleep, "_readiness", readiness)

    connection.rest()
    connection.wait(0.0, peer.waker)

    assert connection.read() == []
    readiness.close()


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="the system has no such option")
def test_data_may_stay_unacknowledged_for_two_heartbeats(peer: Peer) -> None:
    assert isinstance(peer.connection, AMQPConnection)
    sock = peer.connection._transport.sock

    option = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)

    assert option == 2 * HEARTBEAT * 1000


# --- entities ---------------------------------------------------------------


def test_exchange_and_queue_are_durable_and_of_everybody(
    endpoint: Endpoint, peer: Peer, binding: QueueBinding
) -> None:
    # a second time changes nothing
    peer.connection.declare_exchange(binding.exchange)
    peer.connection.declare_queue(binding)

    # the broker refuses a declaration that differs
    with amqp.Connection(f"{endpoint.host}:{endpoint.port}") as stranger:
        channel = stranger.channel()
        channel.exchange_declare(binding.exchange, "direct", durable=True, auto_delete=False)
        channel.queue_declare(binding.queue, durable=True, exclusive=False, auto_delete=False)


def test_arguments_of_a_queue_reach_the_broker(
    endpoint: Endpoint, peer: Peer, server_id: str, rabbitmq_node: RabbitMQNode
) -> None:
    binding = QueueBinding(server_id, "amq.direct", server_id)

    peer.connection.declare_queue(binding, {"x-expires": 60_000})

    assert rabbitmq_node.arguments(server_id)["x-expires"] == "60000"
    peer.connection.delete_queue(server_id)


def test_a_deleted_exchange_is_gone_and_deleting_it_again_does_no_harm(
    peer: Peer, server_id: str, rabbitmq_node: RabbitMQNode
) -> None:
    peer.connection.declare_exchange(server_id)
    assert server_id in rabbitmq_node.exchanges()

    for _ in range(2):
        peer.connection.delete_exchange(server_id)

    assert server_id not in rabbitmq_node.exchanges()


def test_a_queue_that_is_unbound_gets_nothing_more_and_unbinding_it_again_does_no_harm(
    peer: Peer, binding: QueueBinding
) -> None:
    peer.connection.confirm()
    peer.connection.unbind_queue(binding)
    peer.connection.unbind_queue(binding)
    peer.connection.unbind_queue(binding._replace(exchange="nowhere"))

    peer.connection.write([message(binding, b"1", correlation_id="a:1")])
    # then
    peer.read_until(lambda came: any(isinstance(each, Returned) for each in came))


def test_a_deleted_queue_is_gone_and_deleting_it_again_does_no_harm(
    peer: Peer, binding: QueueBinding, rabbitmq_node: RabbitMQNode
) -> None:
    peer.connection.delete_queue(binding.queue)
    peer.connection.delete_queue(binding.queue)

    assert binding.queue not in rabbitmq_node.queues()


def test_whether_there_is_a_queue_can_be_asked_at_any_time_and_disturbs_nothing(
    peer: Peer, binding: QueueBinding
) -> None:
    # given a connection with a consumer and with confirms, which a closed channel would end
    peer.connection.confirm()
    peer.connection.consume(binding.queue)

    # when
    found = [peer.connection.has_queue(name) for name in ("nothing", binding.queue, "nothing")]

    # then
    assert found == [False, True, False]
    peer.connection.write([message(binding, b"1")])
    events = peer.next(2)
    assert len(settled(events)) == 1
    assert [each.body for each in events if isinstance(each, Delivery)] == [b"1"]


def test_a_declaration_that_the_broker_refuses_is_told_in_its_words(
    peer: Peer, binding: QueueBinding
) -> None:
    with pytest.raises(QAMConnectionException, match="PRECONDITION_FAILED") as caught:
        peer.connection.declare_queue(binding, {"x-expires": 60_000})

    assert caught.value.executed == "no"


def test_a_broker_that_does_not_answer_a_declaration_is_given_up(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a connection that was used: nothing of what we write arrives any more
    assert isinstance(peer.connection, AMQPConnection)
    peer.connection.read()
    monkeypatch.setattr(rabbitmq, "_ANSWER_TIMEOUT", 0.2)
    monkeypatch.setattr(peer.connection._transport, "_send", lambda data: 0)

    # when
    with pytest.raises(QAMConnectionException, match="timed out"):
        peer.connection.declare_exchange("nothing")


def test_a_broker_that_does_not_answer_the_first_declarations_could_not_be_connected_to(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a connection that was only opened: nothing of what we write arrives
    connection: Any = peer.connection
    monkeypatch.setattr(connection, "_opened_by", Deadline(0.05))
    monkeypatch.setattr(connection._transport, "_send", lambda data: 0)

    # when
    with pytest.raises(QAMConnectionException) as caught:
        connection.declare_exchange("nothing")

    # then
    assert str(caught.value).startswith("can't connect to the broker at ")
    assert str(caught.value).endswith("no answer within 0.05 seconds")
    assert (caught.value.executed, caught.value.unanswered) == ("no", True)

    # and it can't be used any more: the answer could come later, and be taken for another one
    monkeypatch.undo()
    for verb in (connection.flush, lambda: connection.declare_exchange("nothing")):
        with pytest.raises(QAMConnectionException, match="it was closed"):
            verb()


def test_what_a_user_may_not_do_on_a_new_connection_is_told_and_is_no_loss(
    endpoint: Endpoint, peer: Peer, binding: QueueBinding
) -> None:
    with pytest.raises(QAMConnectionException, match="ACCESS_REFUSED") as caught:
        peer.connection.delete_exchange("amq.direct")

    assert f"refused user {endpoint.username!r}: " in str(caught.value)
    assert caught.value.executed == "no"
    peer.connection.declare_exchange(binding.exchange)


def test_what_a_user_may_not_do_later_is_a_loss_that_trying_again_does_not_mend(
    peer: Peer,
) -> None:
    peer.connection.read()

    with pytest.raises(QAMConnectionException, match=r"was lost: .*ACCESS_REFUSED") as caught:
        peer.connection.delete_exchange("amq.direct")

    assert caught.value.executed == "unknown"
    assert caught.value.refused
    assert caught.value.by_message


HEARTBEAT_FRAME = b"\x08\0\0\0\0\0\0\xce"


def test_a_broker_that_sends_only_heartbeats_does_not_answer(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a connection to a broker that lives, and sends a heartbeat whenever one has come
    connection: Any = peer.connection
    connection.read()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.send(HEARTBEAT_FRAME)
        monkeypatch.setattr(rabbitmq, "_ANSWER_TIMEOUT", 0.2)
        monkeypatch.setattr(connection._transport, "_on_life", lambda: theirs.send(HEARTBEAT_FRAME))
        broker, connection._transport.sock = connection._transport.sock, ours
        try:
            # when the queue that it is asked for is stuck
            with pytest.raises(QAMConnectionException, match="timed out"):
                connection.inspect_queue("stuck")
        finally:
            connection._transport.sock = broker


# --- traffic ----------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 127, 131_064, 131_065, 1024 * 1024])
def test_bodies_of_every_size_arrive_as_they_were(
    peer: Peer, other: Peer, binding: QueueBinding, size: int
) -> None:
    # given
    body = os.urandom(size)
    peer.connection.confirm()
    other.connection.consume(binding.queue)

    # when
    peer.connection.write([message(binding, body)])

    # then
    (delivery,) = other.deliveries(1)
    assert type(delivery.body) is bytes
    assert delivery.body == body
    assert len(peer.confirmed(1)) == 1


@pytest.mark.parametrize(
    "encoding", ["binary", "utf-8", "latin-1", "utf-16", "utf-8-sig", "no such"]
)
def test_a_body_arrives_as_it_was_whatever_encoding_its_sender_names(
    peer: Peer, binding: QueueBinding, encoding: str
) -> None:
    body = b"\xef\xbb\xbfcaf\xc3\xa9 "
    peer.connection.consume(binding.queue)

    peer.connection.write([message(binding, body, content_encoding=encoding)])

    (delivery,) = peer.deliveries(1)
    assert type(delivery.body) is bytes
    assert delivery.body == body


def test_a_message_whose_properties_make_no_sense_arrives_and_ends_nothing(
    peer: Peer, other: Peer, binding: QueueBinding, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given: a correlation id that is no text
    peer.connection.consume(binding.queue)
    odd = b"\x04\x00" + b"\x01\xff"
    monkeypatch.setattr(amqp.Message, "_serialize_properties", lambda self: odd)

    # when
    other.connection.write([message(binding, b"odd")])
    monkeypatch.undo()
    other.connection.write([message(binding, b"good", correlation_id="a:1")])

    # then
    bodies = [each.body for each in peer.deliveries(2)]
    assert bodies == [b"odd", b"good"]


def test_properties_arrive_as_they_were(peer: Peer, other: Peer, binding: QueueBinding) -> None:
    # given
    properties = {
        "content_type": "application/json",
        "content_encoding": "utf-8",
        "delivery_mode": 2,
        "correlation_id": "a:1",
        "reply_to": "key",
        "expiration": "60000",
        "headers": {"attempt": 2},
    }
    other.connection.consume(binding.queue)

    # when
    peer.connection.write([message(binding, **properties)])

    # then
    (delivery,) = other.deliveries(1)
    assert delivery.correlation_id == "a:1"
    assert delivery.time_to_live == 60.0
    assert delivery.properties == properties


def test_what_is_written_is_confirmed_as_the_same_object(peer: Peer, binding: QueueBinding) -> None:
    # given
    messages = [message(binding, b"%d" % number, correlation_id=str(number)) for number in range(9)]
    peer.connection.confirm()

    # when
    peer.connection.write(messages[:4])
    peer.connection.write(iter(messages[4:]))

    # then
    confirmed = peer.confirmed(9)
    assert confirmed == messages  # they have no equality but identity
    assert peer.connection.take_unconfirmed() == []


def test_a_message_that_no_queue_takes_comes_back(peer: Peer, binding: QueueBinding) -> None:
    # given
    peer.connection.confirm()
    nowhere = Route(binding.exchange, "nobody's key")
    lost = Publish(nowhere, b"1", {"correlation_id": "a:1"})
    optional = Publish(nowhere, b"2", {"correlation_id": "a:2"}, mandatory=False)
    taken = message(binding, b"3", correlation_id="a:3")

    # when
    peer.connection.write([lost, optional, taken])

    # then
    events = peer.read_until(
        lambda came: len(settled(came)) == 2 and any(isinstance(each, Returned) for each in came)
    )
    assert settled(events) == [optional, taken]
    assert [each.message for each in events if isinstance(each, Returned)] == [lost]


def test_one_that_wants_no_confirm_is_told_by_its_id_if_no_queue_takes_it(
    peer: Peer, binding: QueueBinding
) -> None:
    # given a connection that also sends messages of which no confirm is wanted
    peer.connection.confirm(also_plain=True)
    nowhere = Route(binding.exchange, "nobody's key")
    lost = Publish(nowhere, b"1", {"correlation_id": "a:1"}, confirm=False)
    optional = Publish(nowhere, b"2", {"correlation_id": "a:2"}, mandatory=False, confirm=False)
    taken = message(binding, b"3", correlation_id="a:3")

    # when
    peer.connection.write([lost, optional, taken])

    # then
    events = peer.read_until(
        lambda came: settled(came) and any(isinstance(each, Unroutable) for each in came)
    )
    assert [each.correlation_id for each in events if isinstance(each, Unroutable)] == ["a:1"]
    assert settled(events) == [taken]


def test_without_any_confirms_it_is_told_so_too(peer: Peer, binding: QueueBinding) -> None:
    nowhere = Route(binding.exchange, "nobody's key")

    peer.connection.write([Publish(nowhere, b"1", {"correlation_id": "a:1"}, confirm=False)])

    assert peer.next() == [Unroutable("a:1")]


def test_a_message_that_the_queue_rejects_is_refused(peer: Peer, server_id: str) -> None:
    # given: a queue that takes no more than one message; one of quorum would take both
    binding = QueueBinding(server_id, "amq.direct", server_id)
    full = {"x-queue-type": "classic", "x-max-length": 1, "x-overflow": "reject-publish"}
    peer.connection.declare_queue(binding, full)
    peer.connection.confirm()
    first, second = message(binding), message(binding)

    # when
    peer.connection.write([first, second])

    # then
    events = peer.read_until(
        lambda came: settled(came) and any(isinstance(each, Refused) for each in came)
    )
    assert settled(events) == [first]
    assert [each.message for each in events if isinstance(each, Refused)] == [second]
    peer.connection.delete_queue(server_id)


def test_what_came_with_an_answer_of_the_broker_is_not_waited_for(
    peer: Peer, binding: QueueBinding
) -> None:
    peer.connection.consume(binding.queue)
    peer.connection.write([message(binding)])
    # given a delivery that was taken in by the way
    until(lambda: peer.connection.inspect_queue(binding.queue) and peer.connection._events)  # type: ignore[attr-defined]
    # when
    began = time.monotonic()
    peer.connection.wait(LONG, peer.waker)
    # then
    assert time.monotonic() - began < LONG
    assert [type(event) for event in peer.connection.read()] == [Delivery]


def test_a_consumer_holds_no_more_than_its_prefetch(
    peer: Peer, other: Peer, binding: QueueBinding
) -> None:
    # given
    other.connection.write([message(binding, b"%d" % number) for number in range(5)])
    peer.connection.consume(binding.queue, prefetch=2)
    first, second = peer.deliveries(2)
    assert (first.body, second.body) == (b"0", b"1")
    assert not first.redelivered
    assert read(peer.connection, 0.0, peer.waker) == []

    # when
    peer.connection.acknowledge(second.delivery_tag, multiple=True)

    # then
    third, fourth = peer.deliveries(2)
    assert (third.body, fourth.body) == (b"2", b"3")

    # when
    peer.connection.acknowledge(third.delivery_tag)

    # then
    assert peer.deliveries(1)[0].body == b"4"


def test_the_prefetch_can_be_changed_by_a_second_consumer(
    peer: Peer, other: Peer, binding: QueueBinding
) -> None:
    # given
    other.connection.write([message(binding, b"%d" % number) for number in range(6)])
    narrow = peer.connection.consume(binding.queue, prefetch=1)
    (held,) = peer.deliveries(1)

    # when
    wide = peer.connection.consume(binding.queue, prefetch=3)
    peer.connection.cancel(narrow)

    # then
    assert wide.queue == narrow.queue == binding.queue
    assert wide.tag != narrow.tag
    more = peer.deliveries(3)
    assert [each.body for each in more] == [b"1", b"2", b"3"]

    # when: what the first consumer delivered can still be acknowledged, and makes no room
    peer.connection.acknowledge(held.delivery_tag)
    peer.connection.acknowledge(more[0].delivery_tag)

    # then
    assert [each.body for each in peer.deliveries(1)] == [b"4"]


def test_the_consumer_of_the_highest_priority_is_served(
    peer: Peer, other: Peer, binding: QueueBinding
) -> None:
    # given
    peer.connection.consume(binding.queue, priority=1)
    other.connection.consume(binding.queue, priority=2)

    # when
    peer.connection.write([message(binding) for _ in range(6)])

    # then
    assert len(other.deliveries(6)) == 6
    assert read(peer.connection, 0.0, peer.waker) == []


def test_a_message_that_is_rejected_is_dropped(
    peer: Peer, binding: QueueBinding, rabbitmq_node: RabbitMQNode
) -> None:
    # given
    peer.connection.write([message(binding)])
    peer.connection.consume(binding.queue)
    (delivery,) = peer.deliveries(1)

    # when
    peer.connection.reject(delivery.delivery_tag)
    peer.connection.declare_exchange(binding.exchange)  # answered after the rejection was handled

    # then
    assert rabbitmq_node.queues()[binding.queue] == 0


def test_what_was_not_acknowledged_comes_again_marked(
    peer: Peer, other: Peer, binding: QueueBinding
) -> None:
    peer.connection.write([message(binding)])
    other.connection.consume(binding.queue)
    other.deliveries(1)

    other.connection.close()
    peer.connection.consume(binding.queue)

    assert peer.deliveries(1)[0].redelivered


def test_deliveries_that_come_while_something_else_is_asked_are_not_lost(
    peer: Peer, other: Peer, binding: QueueBinding
) -> None:
    # given
    peer.connection.consume(binding.queue)
    other.connection.confirm()
    other.connection.write([message(binding, b"%d" % number) for number in range(100)])
    other.confirmed(100)

    # when
    peer.connection.declare_exchange(binding.exchange)

    # then
    assert [each.body for each in peer.deliveries(100)] == [b"%d" % each for each in range(100)]


def test_the_end_of_a_queue_is_told_to_its_consumer(
    peer: Peer, other: Peer, binding: QueueBinding
) -> None:
    tag = peer.connection.consume(binding.queue).tag

    other.connection.delete_queue(binding.queue)

    assert peer.next() == [Cancelled(tag)]


def test_the_end_of_a_queue_does_not_disturb_what_else_is_asked(
    peer: Peer, other: Peer, binding: QueueBinding
) -> None:
    # given
    tag = peer.connection.consume(binding.queue).tag
    other.connection.delete_queue(binding.queue)

    # when
    peer.connection.declare_exchange(binding.exchange)
    peer.connection.declare_queue(binding)

    # then
    assert peer.next() == [Cancelled(tag)]


# --- waiting ----------------------------------------------------------------


def test_reading_ends_when_the_time_is_up(peer: Peer) -> None:
    assert read(peer.connection, 0.01, peer.waker) == []


def test_reading_ends_when_it_is_woken_and_forgets_that(peer: Peer) -> None:
    # given
    waker = threading.Thread(target=peer.waker.wake)
    waker.start()

    # when
    assert read(peer.connection, LONG, peer.waker) == []

    # then
    waker.join(LONG)
    started = time.monotonic()
    assert read(peer.connection, 0.05, peer.waker) == []
    assert time.monotonic() - started >= 0.04


def test_what_the_socket_does_not_take_at_once_is_sent_while_reading(
    peer: Peer, binding: QueueBinding
) -> None:
    # given
    assert isinstance(peer.connection, AMQPConnection)
    peer.connection.confirm()
    peer.connection._transport.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    messages = [message(binding, bytes(500_000)) for _ in range(2)]

    # when
    peer.connection.write(messages)

    # then
    assert peer.connection._transport.backlog
    assert peer.confirmed(2) == messages
    assert not peer.connection._transport.backlog


def test_flushing_tells_whether_the_network_has_taken_all(
    peer: Peer, binding: QueueBinding, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    connection: Any = peer.connection
    connection.write([message(binding)])
    connection.consume(binding.queue)
    (delivery,) = peer.deliveries(1)

    # when the network takes nothing, and then goes on
    connection.acknowledge(delivery.delivery_tag)
    with monkeypatch.context() as patch:
        patch.setattr(connection._transport, "_send", lambda data: 0)
        took_all = [connection.flush()]
    took_all.append(connection.flush())

    # then
    assert took_all == [False, True]


def test_it_rests_until_it_is_read(peer: Peer) -> None:
    assert not peer.connection.rests

    peer.connection.rest()
    assert peer.connection.rests

    peer.connection.read()
    assert not peer.connection.rests


def test_it_is_congested_while_the_network_takes_no_more(
    peer: Peer, binding: QueueBinding, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    assert isinstance(peer.connection, AMQPConnection)
    peer.connection.confirm()
    messages = [message(binding, bytes(1024 * 1024)) for _ in range(2)]
    assert not peer.connection.congested

    # when
    with monkeypatch.context() as patch:
        patch.setattr(peer.connection._transport, "_send", lambda data: 0)
        peer.connection.write(messages)

    # then
    assert peer.connection.congested
    assert peer.confirmed(2) == messages
    assert not peer.connection.congested


def test_a_heartbeat_is_due_several_times_in_its_interval(peer: Peer) -> None:
    assert peer.connection.tick() == HEARTBEAT / 4


def test_a_broker_without_heartbeats_wants_no_tick(peer: Peer) -> None:
    assert isinstance(peer.connection, AMQPConnection)
    peer.connection._amqp.heartbeat = 0

    assert peer.connection.tick() is None


def test_a_broker_whose_heartbeats_are_missing_is_lost(peer: Peer) -> None:
    # given
    assert isinstance(peer.connection, AMQPConnection)
    inner = peer.connection._amqp
    peer.connection.tick()

    # when: time passes, and nothing comes
    inner.last_heartbeat_received -= 10 * inner.heartbeat
    inner.prev_recv = inner.bytes_recv
    peer.connection._next_tick = 0.0

    # then
    with pytest.raises(QAMConnectionException, match=r"was lost: .*heartbeat"):
        peer.connection.tick()


def test_an_alarm_of_the_broker_is_told_and_so_is_its_end(
    peer: Peer, binding: QueueBinding, rabbitmq_node: RabbitMQNode
) -> None:
    peer.connection.confirm()
    with rabbitmq_node.memory_alarm():
        peer.connection.write([message(binding)])
        assert Blocked(True) in peer.read_until(lambda came: Blocked(True) in came)

    assert Blocked(False) in peer.read_until(lambda came: Blocked(False) in came)


# --- loss -------------------------------------------------------------------


def test_when_the_broker_closes_it_every_verb_says_so(
    peer: Peer, binding: QueueBinding, rabbitmq_node: RabbitMQNode
) -> None:
    # given
    peer.connection.confirm()
    rabbitmq_node.close_all_connections("maintenance")

    # when
    with pytest.raises(QAMConnectionException, match="was lost") as caught:
        peer.read_until(lambda came: False)

    # then
    assert caught.value.executed == "unknown"
    assert f":{rabbitmq_node.port}, vhost '/'" in str(caught.value)
    unsent = message(binding)
    for verb in (
        lambda: read(peer.connection, 0.0, peer.waker),
        lambda: peer.connection.write([unsent]),
        lambda: peer.connection.reject(1),
        lambda: peer.connection.declare_exchange(binding.exchange),
        lambda: peer.connection.declare_queue(binding),
        lambda: peer.connection.delete_queue(binding.queue),
        lambda: peer.connection.consume(binding.queue),
        lambda: peer.connection.confirm(),
    ):
        with pytest.raises(QAMConnectionException):
            verb()
    assert peer.connection.take_unconfirmed() == [unsent]


def test_what_was_not_confirmed_is_still_known_after_the_loss(
    peer: Peer, binding: QueueBinding
) -> None:
    # given
    assert isinstance(peer.connection, AMQPConnection)
    peer.connection.confirm()
    messages = [message(binding, b"%d" % number) for number in range(3)]
    peer.connection.write(messages[:1])

    # when
    peer.connection._transport.sock.shutdown(socket.SHUT_RDWR)
    with pytest.raises(QAMConnectionException):
        peer.connection.write(messages[1:])

    # then
    assert peer.connection.take_unconfirmed() == messages
    assert peer.connection.take_unconfirmed() == []


def test_a_loss_that_a_flush_notices_is_told(peer: Peer) -> None:
    # given
    connection: Any = peer.connection
    connection.acknowledge(1)
    connection._transport.sock.shutdown(socket.SHUT_RDWR)

    # when, and again
    for _ in range(2):
        with pytest.raises(QAMConnectionException, match="was lost") as caught:
            connection.flush()
        assert caught.value.executed == "unknown"


def test_an_error_of_the_channel_is_a_loss_and_does_not_go_on_silently(
    peer: Peer, binding: QueueBinding
) -> None:
    # given
    peer.connection.confirm()
    nowhere = Publish(Route("no such exchange", "key"), b"body", {})

    # when
    peer.connection.write([nowhere])
    with pytest.raises(QAMConnectionException, match="NOT_FOUND - no exchange"):
        peer.read_until(lambda came: False)

    # then
    assert peer.connection.take_unconfirmed() == [nowhere]


def test_the_brokers_words_are_told_however_old_the_connection_is(
    peer: Peer, binding: QueueBinding
) -> None:
    # given one whose last declaration is long ago
    assert isinstance(peer.connection, AMQPConnection)
    peer.connection._transport.deadline = Deadline(0.0)
    # when the broker closes its channel
    nowhere = Publish(Route("no-such-exchange", "key"), b"", {})
    peer.connection.write([nowhere])
    with pytest.raises(QAMConnectionException, match="no-such-exchange") as raised:
        peer.read_until(lambda came: False)
    # then that is the fault of no message: the exchange can be declared again
    assert not raised.value.by_message


def test_a_mistake_of_this_librarys_own_is_no_loss(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(peer.connection, AMQPConnection)
    monkeypatch.delattr(peer.connection, "_channel")

    with pytest.raises(AttributeError):
        peer.connection.reject(1)


# --- closing ----------------------------------------------------------------


def test_closing_is_quick_and_can_be_repeated(
    endpoint: Endpoint, rabbitmq_node: RabbitMQNode, server_id: str
) -> None:
    # given
    before, descriptors = rabbitmq_node.connections(), open_descriptors()
    connections = [connect(endpoint, LONG) for _ in range(10)]
    assert rabbitmq_node.connections() == before + 10

    # when
    for connection in connections:
        connection.close()
        connection.close()

    # then
    deadline = time.monotonic() + LONG
    while rabbitmq_node.connections() > before:
        assert time.monotonic() < deadline
    assert open_descriptors() == descriptors


def test_closing_does_not_wait_long_for_a_broker_that_does_not_answer(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    assert isinstance(peer.connection, AMQPConnection)
    monkeypatch.setattr(rabbitmq, "_CLOSE_TIMEOUT", 0.2)
    monkeypatch.setattr(peer.connection._transport, "_send", lambda data: 0)

    # when
    started = time.monotonic()
    peer.connection.close()

    # then
    assert time.monotonic() - started < LONG / 3
    assert not peer.connection._transport.connected


def test_a_child_lets_go_of_it_and_its_parent_uses_it_on(endpoint: Endpoint) -> None:
    # given a connection whose socket a parent has, too
    with no_descriptor_left():
        connection = connect(endpoint, LONG)
        assert isinstance(connection, AMQPConnection)
        descriptor = os.dup(connection._transport.sock.fileno())
        with socket.socket(fileno=descriptor) as of_parent:
            of_parent.setblocking(False)
            # when
            connection.detach()
            # then it has not ended for the parent, and this process has nothing of it any more
            with pytest.raises(BlockingIOError):
                of_parent.recv(1)


def test_closing_after_a_loss_says_nothing(peer: Peer) -> None:
    assert isinstance(peer.connection, AMQPConnection)
    peer.connection._transport.sock.shutdown(socket.SHUT_RDWR)
    with pytest.raises(QAMConnectionException):
        peer.read_until(lambda came: False)

    peer.connection.close()


# --- a broker that is configured otherwise ----------------------------------


@pytest.mark.rabbitmq
def test_a_broker_whose_frames_are_larger_is_understood(rabbitmq_node: RabbitMQNode) -> None:
    with (
        rabbitmq_node.settings(frame_max=1_048_576),
        closing(Peer(endpoint_of(rabbitmq_node.host, rabbitmq_node.port))) as peer,
    ):
        # given
        binding = QueueBinding("large", "amq.direct", "large")
        peer.connection.declare_queue(binding)
        peer.connection.consume(binding.queue)
        body = bytes(500_000)

        # when
        peer.connection.write([message(binding, body)])

        # then
        assert peer.deliveries(1)[0].body == body


def test_a_part_of_a_message_is_a_sign_of_life(peer: Peer) -> None:
    connection: Any = peer.connection
    before = connection._amqp.bytes_recv
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        broker, connection._transport.sock = connection._transport.sock, ours
        try:
            theirs.send(b"\x03\x00\x01\x00\x02\x00\x00" + b"x" * 100)  # of a body frame
            connection._sleep._has_come = True
            assert connection.read() == []
            assert connection._amqp.bytes_recv == before + 1
            # and what does not come is none
            connection._sleep._has_come = True
            assert connection.read() == []
            assert connection._amqp.bytes_recv == before + 1
        finally:
            connection._transport.sock = broker
