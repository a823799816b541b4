import logging
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from qam._broker import connection_thread, reconnection
from qam._broker.connect import connect
from qam._broker.connection import Connection
from qam._broker.connection_thread import ConnectionThread
from qam._broker.endpoint import Endpoint
from qam._broker.events import Event
from qam._broker.messages import Delivery, Publish, QueueBinding
from qam._broker.waker import Waker
from qam._common.deadline import Deadline
from qam.amqp_credentials import AMQPCredentials
from qam.exceptions import QAMConnectionException
from tests.conftest import Broker
from tests.support.clock import StandingClock
from tests.support.descriptors import open_descriptors
from tests.support.endpoints import endpoint_of
from tests.support.fake_connection import FakeBroker
from tests.support.rabbitmq import RabbitMQNode, free_ports

LONG = 30.0  # seconds; nothing here takes that long unless it is broken
log = logging.getLogger("tests.owner")


class Owner(ConnectionThread):
    """Sends what it is given, and keeps what it receives."""

    def __init__(
        self, endpoints: Sequence[Endpoint], binding: QueueBinding, **options: Any
    ) -> None:
        super().__init__(f"test owner {binding.queue}", endpoints, log, **options)
        self.binding = binding
        self.to_send: list[bytes] = []
        self.received: list[bytes] = []
        self.openings = 0
        self.before_close = 0
        self.losses: list[QAMConnectionException] = []
        self.deaths: list[BaseException] = []
        self.ends = 0
        self.fail_in: dict[str, BaseException] = {}
        self._changed = threading.Condition()

    def _hook(self, name: str) -> None:
        if name in self.fail_in:
            raise self.fail_in[name]

    def _on_open(self, connection: Connection) -> None:
        self._hook("_on_open")
        connection.declare_exchange(self.binding.exchange)
        connection.declare_queue(self.binding)
        connection.consume(self.binding.queue)
        with self._changed:
            self.openings += 1
            self._changed.notify_all()

    def _write(self, connection: Connection) -> None:
        self._hook("_write")
        bodies, self.to_send[:] = self.to_send[:], []
        connection.write([Publish(self.binding.route, body, {}) for body in bodies])

    def _on_events(self, events: Iterable[Event]) -> None:
        self._hook("_on_events")
        with self._changed:
            self.received += [event.body for event in events if isinstance(event, Delivery)]
            self._changed.notify_all()

    def _on_lost(self, connection: Connection, error: QAMConnectionException) -> None:
        self._hook("_on_lost")
        super()._on_lost(connection, error)
        with self._changed:
            self.losses.append(error)
            self._changed.notify_all()

    def _before_close(self, connection: Connection) -> None:
        self._hook("_before_close")
        super()._before_close(connection)
        self.before_close += 1

    def _on_end(self, error: BaseException | None) -> None:
        self._hook("_on_end")
        super()._on_end(error)
        with self._changed:
            self.ends += 1
            if error is not None and self._opened.done():
                self.deaths.append(error)
            self._changed.notify_all()

    # --- for the tests ---------------------------------------------------------

    def send(self, body: bytes) -> None:
        self.to_send.append(body)
        self.wake()

    def wait_for(self, condition: Callable[[], object]) -> None:
        with self._changed:
            assert self._changed.wait_for(condition, LONG), "it never came true"

    def lose(self) -> None:
        """Cut the connection to RabbitMQ."""
        connection: Any = self._connection
        connection._transport.sock.shutdown(socket.SHUT_RDWR)


def endpoints_of(broker: Broker) -> Sequence[Endpoint]:
    return AMQPCredentials(**broker.kwargs).endpoints()


@pytest.fixture
def own(server_id: str) -> QueueBinding:
    return QueueBinding(f"{server_id}_q", f"{server_id}_e", f"{server_id}_k")


@pytest.fixture
def owner(broker: Broker, own: QueueBinding) -> Iterator[Owner]:
    """A running owner, on each of the two brokers."""
    yield from running(Owner(endpoints_of(broker), own))


@pytest.fixture
def rabbitmq_owner(rabbitmq_node: RabbitMQNode, own: QueueBinding) -> Iterator[Owner]:
    yield from running(Owner([endpoint_of(rabbitmq_node.host, rabbitmq_node.port)], own))


def running(owner: Owner) -> Iterator[Owner]:
    before = open_descriptors() - 1  # without its waker
    owner.start()
    yield owner
    owner.fail_in.clear()
    owner.exit()
    assert not owner.is_alive()
    assert open_descriptors() == before
    delete_queue(owner)


def delete_queue(owner: Owner) -> None:
    connection = connect(owner._reconnection.candidates()[0], LONG)
    connection.delete_queue(owner.binding.queue)
    connection.close()


def nowhere() -> Sequence[Endpoint]:
    """A place where nothing listens."""
    return [endpoint_of("127.0.0.1", free_ports(1)[0])]


# --- starting ---------------------------------------------------------------


def test_after_start_the_connection_is_open(owner: Owner) -> None:
    assert owner._opened.done()
    assert owner.openings == 1
    assert owner.daemon
    assert owner.name == f"test owner {owner.binding.queue}"


def test_what_is_handed_over_is_sent_and_what_comes_is_taken_in(owner: Owner) -> None:
    for number in range(20):
        owner.send(b"%d" % number)

    owner.wait_for(lambda: len(owner.received) == 20)
    assert owner.received == [b"%d" % number for number in range(20)]


def test_a_connection_that_can_not_be_opened_is_told_by_start_and_leaves_no_thread(
    own: QueueBinding,
) -> None:
    endpoint = nowhere()
    before = open_descriptors()
    owner = Owner(endpoint, own)

    with pytest.raises(QAMConnectionException, match="nothing listens there") as caught:
        owner.start()

    assert caught.value.executed == "no"
    assert not owner.is_alive()
    assert owner.deaths == []
    assert open_descriptors() == before


@pytest.mark.parametrize("error", [ValueError("bug"), SystemExit(3)], ids=repr)
def test_a_bug_while_opening_is_told_by_start_and_leaves_no_thread(
    broker: Broker, own: QueueBinding, error: BaseException
) -> None:
    # given
    before = open_descriptors()
    owner = Owner(endpoints_of(broker), own)
    owner.fail_in["_on_open"] = error

    # when
    with pytest.raises(type(error)) as caught:
        owner.start()

    # then
    assert caught.value is error
    assert not owner.is_alive()
    assert owner.deaths == []
    assert open_descriptors() == before


def test_a_url_that_is_none_is_told_at_once(own: QueueBinding) -> None:
    with pytest.raises(ValueError, match="http://"):
        Owner(AMQPCredentials("http://broker").endpoints(), own)


def test_a_host_name_that_takes_for_ever_to_resolve_is_given_up(
    own: QueueBinding, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    resolving, go_on = threading.Event(), threading.Event()

    def resolve(*args: object) -> None:
        if socket.AI_NUMERICHOST not in args:
            resolving.set()
            go_on.wait(LONG)
        raise socket.gaierror(socket.EAI_NONAME, "no such name")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    owner = Owner([endpoint_of("slow.invalid")], own, connect_timeout=0.2)

    # when
    with pytest.raises(QAMConnectionException, match=r"slow.invalid.*no answer within") as caught:
        owner.start()

    # then
    assert resolving.wait(LONG)
    assert caught.value.executed == "no"
    assert owner.kill
    go_on.set()
    owner.join(LONG)
    assert not owner.is_alive()


def test_a_host_name_is_resolved_where_there_are_no_more_threads(
    own: QueueBinding, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    owner = Owner([endpoint_of("absent.invalid")], own, connect_timeout=LONG)
    start, refused = threading.Thread.start, []

    def refuse_resolvers(thread: threading.Thread) -> None:
        if "resolver" in thread.name:
            refused.append(thread)
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse_resolvers)

    # then
    with pytest.raises(QAMConnectionException, match=r"absent.invalid.*the host name is unknown"):
        owner.start()
    assert len(refused) == 1


def test_one_that_opens_after_it_was_given_up_closes_at_once(
    broker: Broker, own: QueueBinding
) -> None:
    # given
    go_on = threading.Event()

    def connect_late(endpoint: Endpoint, timeout: float) -> Connection:
        go_on.wait(LONG)
        return connect(endpoint, LONG)

    owner = Owner(endpoints_of(broker), own, connect_timeout=-0.9, connect=connect_late)
    with pytest.raises(QAMConnectionException):
        owner.start()

    # when
    go_on.set()

    # then
    owner.join(LONG)
    assert not owner.is_alive()
    assert owner.openings == 1
    assert owner.received == []
    delete_queue(owner)


# --- stopping ---------------------------------------------------------------


def test_exit_ends_the_thread_and_can_be_repeated(owner: Owner) -> None:
    owner.exit()
    assert not owner.is_alive()
    assert owner.before_close == 1

    owner.exit()
    owner.wake()

    assert owner.before_close == 1
    assert owner._connection is None
    assert owner.losses == owner.deaths == []


def test_many_threads_may_call_exit_at_once(owner: Owner) -> None:
    threads = [threading.Thread(target=owner.exit) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)

    assert not owner.is_alive()
    assert owner.before_close == 1


def test_the_thread_itself_may_call_exit(owner: Owner) -> None:
    owner._write = lambda connection: owner.exit()  # type: ignore[method-assign]

    owner.wake()

    owner.join(LONG)
    assert not owner.is_alive()
    assert owner.deaths == []


def test_one_that_was_never_started_may_exit_too(own: QueueBinding) -> None:
    owner = Owner(nowhere(), own)

    owner.exit()
    owner.join_until(Deadline(LONG))

    assert owner.kill


def test_one_that_is_stopped_before_it_starts_ends_at_once(
    broker: Broker, own: QueueBinding
) -> None:
    owner = Owner(endpoints_of(broker), own)
    owner.ask_to_stop()

    owner.start()

    owner.join(LONG)
    assert not owner.is_alive()
    delete_queue(owner)


def test_a_loss_while_it_stops_is_none(rabbitmq_owner: Owner) -> None:
    # given
    owner = rabbitmq_owner
    owner.fail_in["_before_close"] = QAMConnectionException("gone")

    # when
    owner.exit()

    # then
    assert not owner.is_alive()
    assert owner.losses == owner.deaths == []
    assert owner.openings == 1


def test_an_exit_that_the_thread_does_not_follow_comes_back_all_the_same(
    broker: Broker, own: QueueBinding, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    monkeypatch.setattr(connection_thread, "_EXIT_TIMEOUT", 0.05)
    stuck, go_on = threading.Event(), threading.Event()
    owner = Owner(endpoints_of(broker), own)
    owner.start()

    def never_return(connection: Connection) -> None:
        stuck.set()
        go_on.wait(LONG)

    owner._write = never_return  # type: ignore[method-assign]
    owner.wake()
    assert stuck.wait(LONG)

    # when
    owner.exit()

    # then
    assert owner.is_alive()
    go_on.set()
    owner.join(LONG)
    assert not owner.is_alive()
    delete_queue(owner)


# --- losing the connection --------------------------------------------------


def test_after_a_loss_it_connects_again_and_goes_on(
    rabbitmq_owner: Owner, caplog: pytest.LogCaptureFixture
) -> None:
    # given
    owner = rabbitmq_owner
    caplog.set_level(logging.INFO, log.name)

    # when
    owner.lose()
    owner.wait_for(lambda: owner.openings == 2)
    owner.send(b"after")

    # then
    owner.wait_for(lambda: owner.received == [b"after"])
    assert len(owner.losses) == 1
    assert owner.deaths == []
    records = [(record.levelname, record.getMessage()) for record in caplog.records]
    (lost, again) = [record for record in records if record[0] in ("WARNING", "INFO")]
    assert lost[0] == "WARNING"
    assert lost[1].endswith("; connecting again")
    assert again[0] == "INFO"
    assert "connected again to the broker at" in again[1]


def test_a_broker_that_closes_every_connection_is_connected_to_again(
    rabbitmq_node: RabbitMQNode, rabbitmq_owner: Owner
) -> None:
    rabbitmq_node.close_all_connections("maintenance")

    rabbitmq_owner.wait_for(lambda: rabbitmq_owner.openings == 2)
    rabbitmq_owner.send(b"after")
    rabbitmq_owner.wait_for(lambda: rabbitmq_owner.received == [b"after"])


def test_what_an_owner_itself_calls_a_loss_is_one(owner: Owner) -> None:
    # given
    owner.fail_in["_write"] = QAMConnectionException("the queue was deleted")

    # when
    owner.wake()
    owner.wait_for(lambda: owner.losses)
    owner.fail_in.clear()

    # then
    owner.wait_for(lambda: owner.openings >= 2)
    owner.send(b"after")
    owner.wait_for(lambda: owner.received == [b"after"])


class FailingBroker:
    """A broker that can't be reached, while it is down; counts who tries."""

    def __init__(self, down: bool) -> None:
        self.attempts = 0
        self.down = down
        self.tried = threading.Condition()

    def connect(self, endpoint: Endpoint, timeout: float) -> Connection:
        with self.tried:
            self.attempts += 1
            self.tried.notify_all()
            if self.down:
                raise QAMConnectionException("nothing listens there")
        return connect(endpoint, timeout)

    def wait_for(self, attempts: int) -> None:
        with self.tried:
            assert self.tried.wait_for(lambda: self.attempts >= attempts, LONG)


@pytest.fixture
def reconnecting(broker: Broker, own: QueueBinding) -> Iterator[tuple[Owner, FailingBroker]]:
    """An owner that has lost its connection and tries in vain to get another."""
    failing = FailingBroker(down=False)
    owner = Owner(endpoints_of(broker), own, connect=failing.connect)
    owner.start()
    failing.down = True
    owner.fail_in["_write"] = QAMConnectionException("cut")
    owner.wake()
    owner.wait_for(lambda: owner.losses)
    owner.fail_in.clear()
    failing.wait_for(2)
    yield owner, failing
    owner.exit()
    delete_queue(owner)


def test_it_tries_again_and_again_until_it_works(
    reconnecting: tuple[Owner, FailingBroker], caplog: pytest.LogCaptureFixture
) -> None:
    # given
    owner, failing = reconnecting
    failing.wait_for(5)

    # when
    failing.down = False

    # then
    owner.wait_for(lambda: owner.openings == 2)
    owner.send(b"after")
    owner.wait_for(lambda: owner.received == [b"after"])
    assert len(owner.losses) == 1


def test_work_that_is_handed_over_meanwhile_neither_hurries_it_nor_is_lost(
    reconnecting: tuple[Owner, FailingBroker], monkeypatch: pytest.MonkeyPatch
) -> None:
    # given: from now on it pauses for a long time, and is woken in it
    owner, failing = reconnecting
    pauses: list[float] = []
    pause = owner._pause

    def pause_and_be_woken(seconds: float) -> None:
        pauses.append(seconds)
        owner.wake()
        pause(seconds)
        assert owner.kill or Deadline(0).expired

    monkeypatch.setattr(owner, "_pause", pause_and_be_woken)
    owner.send(b"meanwhile")
    failing.wait_for(failing.attempts + 2)

    # when
    failing.down = False

    # then
    owner.wait_for(lambda: owner.received == [b"meanwhile"])
    assert pauses


def test_one_that_tries_to_connect_ends_at_once_when_it_is_asked_to(
    reconnecting: tuple[Owner, FailingBroker],
) -> None:
    owner, _ = reconnecting

    owner.ask_to_stop()

    owner.join(LONG)
    assert not owner.is_alive()
    assert owner.deaths == []
    assert owner.before_close == 0


def test_a_long_pause_ends_at_once_when_it_is_asked_to_stop(own: QueueBinding) -> None:
    # given
    owner = Owner(nowhere(), own)
    pausing = threading.Thread(target=owner._pause, args=(10 * LONG,))
    pausing.start()
    owner.wake()

    # when
    owner.ask_to_stop()

    # then
    pausing.join(LONG)
    assert not pausing.is_alive()


def test_a_pause_is_as_long_as_it_was_told_in_spite_of_wakes(own: QueueBinding) -> None:
    owner = Owner(nowhere(), own)
    deadline = Deadline(0.05)
    owner.wake()

    owner._pause(0.05)

    assert deadline.expired


def test_the_first_attempt_is_made_at_once_and_later_ones_ever_more_slowly(
    own: QueueBinding, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    failing = FailingBroker(down=True)
    owner = Owner(nowhere(), own, connect=failing.connect)
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        assert failing.attempts == len(pauses)
        pauses.append(seconds)
        if len(pauses) == 13:
            owner.kill = True

    monkeypatch.setattr(reconnection.random, "uniform", lambda low, high: high)
    monkeypatch.setattr(owner, "_pause", pause)

    # when
    assert owner._open_again() is None

    # then
    assert pauses[:7] == [0.0, 0.05, 0.1, 0.2, 0.4, 0.8, 1.0]
    assert set(pauses[7:]) == {1.0}


class CountingWaker(Waker):
    """Counts how often it was waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.waits = 0

    def wait(self, timeout: float | None) -> None:
        self.waits += 1
        super().wait(timeout)


def test_a_wake_in_a_pause_does_not_have_it_spin_until_its_end(own: QueueBinding) -> None:
    # given
    waker = CountingWaker()
    owner = Owner(nowhere(), own, waker=waker)
    waker.wake()

    # when
    owner._pause(0.05)

    # then it was woken once, and slept on; a timeout may end a hair too soon
    assert 2 <= waker.waits <= 4
    waker.close()


# --- several endpoints ------------------------------------------------------


ENDPOINTS = [endpoint_of("one"), endpoint_of("two"), endpoint_of("three")]


class SeveralBrokers:
    """Brokers of which some can't be reached, or are of no use; notes who was asked."""

    def __init__(self) -> None:
        self.down: set[str] = set()
        self.asked: list[str] = []
        self.fake = FakeBroker(StandingClock())

    def connect(self, endpoint: Endpoint, timeout: float) -> Connection:
        self.asked.append(endpoint.host)
        if endpoint.host in self.down:
            raise QAMConnectionException("nothing listens there")
        return self.fake.connect(endpoint, timeout)


@pytest.fixture
def several(own: QueueBinding) -> Iterator[tuple[SeveralBrokers, Owner]]:
    brokers = SeveralBrokers()
    owner = Owner(ENDPOINTS, own, connect=brokers.connect)
    yield brokers, owner
    brokers.fake.end()


def test_the_first_that_takes_a_connection_is_used(
    several: tuple[SeveralBrokers, Owner],
) -> None:
    brokers, owner = several
    brokers.down = {"one"}

    brokers.fake.run(owner)

    assert brokers.asked == ["one", "two"]


def test_after_a_loss_the_next_one_comes_first(several: tuple[SeveralBrokers, Owner]) -> None:
    brokers, owner = several
    brokers.fake.run(owner)

    for _ in range(3):
        brokers.fake.connection.lose()
        brokers.fake.settle()

    assert brokers.asked == ["one", "two", "three", "one"]


def test_after_a_channel_that_a_message_closed_it_stays_where_it_is(
    several: tuple[SeveralBrokers, Owner],
) -> None:
    brokers, owner = several
    brokers.fake.run(owner)
    error = QAMConnectionException("too large")
    error.by_message = True

    brokers.fake.connection.lose(error)
    brokers.fake.settle()

    assert brokers.asked == ["one", "one"]


def test_one_where_nothing_can_be_declared_is_left_for_the_next(
    several: tuple[SeveralBrokers, Owner],
) -> None:
    # given an owner that has lost its connection
    brokers, owner = several
    brokers.fake.run(owner)
    failures = [QAMConnectionException("no permission")]
    original = owner._on_open

    def fail_once(connection: Connection) -> None:
        if failures:
            raise failures.pop()
        original(connection)

    owner._on_open = fail_once  # type: ignore[method-assign]

    # when
    brokers.fake.connection.lose()
    brokers.fake.settle()

    # then
    assert brokers.asked == ["one", "two", "three"]
    assert brokers.fake.connections[1].closed


def test_the_endpoints_share_the_time_that_there_is(own: QueueBinding) -> None:
    times: list[float] = []

    def connect_in_vain(endpoint: Endpoint, timeout: float) -> Connection:
        times.append(timeout)
        raise QAMConnectionException(f"nothing listens at {endpoint.host}")

    owner = Owner(ENDPOINTS, own, connect_timeout=LONG, connect=connect_in_vain)
    with pytest.raises(QAMConnectionException, match="three"):
        owner.start()

    assert times[0] == pytest.approx(LONG / 3)
    assert sum(times) <= 2 * LONG
    assert times[-1] == pytest.approx(LONG, abs=LONG / 10)


# --- borrowers --------------------------------------------------------------


class TestAConnectionThatIsLent:
    """While its owner sleeps, another thread writes in its place."""

    @pytest.fixture
    def broker(self) -> Iterator[FakeBroker]:
        broker = FakeBroker(StandingClock())
        yield broker
        broker.end()

    @pytest.fixture
    def owner(self, broker: FakeBroker, own: QueueBinding) -> Owner:
        owner = Owner([endpoint_of("here")], own, connect=broker.connect)
        broker.run(owner)
        return owner

    def test_is_used_by_the_thread_that_calls_and_flushed(
        self, broker: FakeBroker, owner: Owner
    ) -> None:
        waits = broker.connection.waits

        assert owner._borrow(lambda connection: write_to(connection, owner))

        assert broker.connection.bodies == [b"lone"]
        assert broker.connection.waits == waits
        assert not broker.connection.rests

    def test_rests_if_what_comes_is_not_urgent(self, broker: FakeBroker, owner: Owner) -> None:
        assert owner._borrow(lambda connection: True, rest=True)
        assert broker.connection.rests
        waits = broker.connection.waits
        # when somebody looks again
        owner.look_again()
        broker.settle()
        # then it rests no more, and looking once more wakes nobody
        assert not broker.connection.rests
        assert broker.connection.waits == waits + 1
        owner.look_again()
        broker.settle()
        assert broker.connection.waits == waits + 1

    def test_is_woken_from_its_rest_by_who_does_not_look_again(
        self, broker: FakeBroker, owner: Owner
    ) -> None:
        owner._borrow(lambda connection: True, rest=True)

        owner._borrow(lambda connection: True)
        broker.settle()

        assert not broker.connection.rests

    def test_is_left_to_its_owner_where_it_was_not_used(
        self, broker: FakeBroker, owner: Owner
    ) -> None:
        assert not owner._borrow(lambda connection: False, rest=True)
        assert not broker.connection.rests

    def test_wakes_its_owner_for_what_the_network_did_not_take(
        self, broker: FakeBroker, owner: Owner
    ) -> None:
        waits = broker.connection.waits
        broker.connection.congested = True

        assert owner._borrow(lambda connection: write_to(connection, owner), rest=True)
        broker.settle()

        assert broker.connection.waits == waits + 1
        assert broker.connection.bodies == []
        broker.connection.congested = False
        broker.settle()
        assert broker.connection.bodies == [b"lone"]

    @pytest.mark.parametrize(("due", "wakes"), [(5.0, 1), (20.0, 0)])
    def test_wakes_its_owner_for_what_is_due_sooner_than_before(
        self, broker: FakeBroker, owner: Owner, due: float, wakes: int
    ) -> None:
        # given an owner that sleeps for ten seconds
        seconds = 10.0
        owner._next_due = lambda: seconds  # type: ignore[method-assign]
        owner.wake()
        broker.settle()
        waits = broker.connection.waits

        # when
        def use(connection: Connection) -> bool:
            nonlocal seconds
            seconds = due
            return True

        owner._borrow(use)
        broker.settle()

        # then
        assert broker.connection.waits == waits + wakes

    def test_is_not_lent_to_its_owner(self, broker: FakeBroker, owner: Owner) -> None:
        lent: list[bool] = []
        original = owner._write

        def write(connection: Connection) -> None:
            original(connection)
            lent.append(owner._borrow(lambda connection: True))

        owner._write = write  # type: ignore[method-assign]
        owner.wake()
        broker.settle()

        assert lent == [False]

    def test_is_not_lent_twice_at_a_time(self, owner: Owner) -> None:
        # given one that borrows it, in whose middle a finalizer and another thread want it
        lent: list[bool] = []

        def want_it() -> None:
            lent.append(owner._borrow(lambda connection: True))

        def use(connection: Connection) -> bool:
            want_it()
            thread = threading.Thread(target=want_it)
            thread.start()
            thread.join(LONG)
            return True

        assert owner._borrow(use)
        assert lent == [False, False]
        assert owner._borrow(lambda connection: True)

    def test_that_is_lost_by_its_borrower_is_opened_again_by_its_owner(
        self, broker: FakeBroker, owner: Owner
    ) -> None:
        error = QAMConnectionException("the cable was cut")

        def fail(connection: Connection) -> bool:
            raise error

        assert owner._borrow(fail)
        assert not owner._borrow(lambda connection: True), "it is lost"
        broker.settle()

        assert owner.losses == [error]
        assert owner.openings == 2
        assert owner._borrow(lambda connection: True)

    def test_is_of_no_use_after_ctrl_c_in_the_middle(
        self, broker: FakeBroker, owner: Owner
    ) -> None:
        def interrupt(connection: Connection) -> bool:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            owner._borrow(interrupt)
        assert not owner._borrow(lambda connection: True), "how much was written is not known"
        # then its owner is woken, and opens another
        broker.settle()

        assert [str(error) for error in owner.losses] == [
            "a caller was interrupted while it used the connection"
        ]
        assert owner._borrow(lambda connection: True)

    def test_is_there_no_more_after_the_end(self, broker: FakeBroker, owner: Owner) -> None:
        broker.end()

        assert not owner._borrow(lambda connection: True)
        owner.look_again()

    def test_is_given_up_in_a_forked_child(self, broker: FakeBroker, owner: Owner) -> None:
        connection = broker.connection

        owner._in_forked_child()

        assert connection.closed
        assert owner.kill
        assert owner._connection is None
        assert not owner._borrow(lambda connection: True)


def write_to(connection: Connection, owner: Owner) -> bool:
    """Write one message, and say so."""
    connection.write([Publish(owner.binding.route, b"lone", {})])
    return True


# --- bugs -------------------------------------------------------------------


@pytest.mark.parametrize("hook", ["_write", "_on_events"])
def test_a_bug_in_a_hook_ends_the_thread_and_is_told(
    broker: Broker, own: QueueBinding, hook: str, caplog: pytest.LogCaptureFixture
) -> None:
    # given
    owner = Owner(endpoints_of(broker), own)
    owner.start()
    bug = ValueError("bug")
    if hook == "_on_events":
        owner.send(b"1")
        owner.wait_for(lambda: owner.received == [b"1"])

    # when
    owner.fail_in[hook] = bug
    owner.send(b"2")

    # then
    owner.wait_for(lambda: owner.deaths == [bug])
    owner.join(LONG)
    assert not owner.is_alive()
    assert owner._connection is None
    assert owner.openings == 1
    (record,) = [each for each in caplog.records if each.levelname == "ERROR"]
    assert record.getMessage() == f"{owner.name} died of an internal error"
    assert record.exc_info is not None
    assert record.exc_info[1] is bug
    delete_queue(owner)


@pytest.mark.parametrize("hook", ["_on_lost", "_on_open"])
def test_a_bug_after_a_loss_is_told_too(
    rabbitmq_node: RabbitMQNode, own: QueueBinding, hook: str
) -> None:
    # given
    before = open_descriptors()
    owner = Owner([endpoint_of(rabbitmq_node.host, rabbitmq_node.port)], own)
    owner.start()
    bug = ValueError("bug")
    owner.fail_in[hook] = bug

    # when
    owner.lose()

    # then
    owner.wait_for(lambda: owner.deaths == [bug])
    owner.join(LONG)
    assert not owner.is_alive()
    assert open_descriptors() == before
    delete_queue(owner)


def test_what_waited_for_room_is_written_when_there_is_some(own: QueueBinding) -> None:
    # given a network that took nothing more, and takes all now
    connection = SimpleNamespace(
        congested=True, read=list, write=lambda messages: None, tick=lambda: None
    )
    connection.flush = lambda: setattr(connection, "congested", False)
    owner = Owner(nowhere(), own)

    # when: it was still congested as the owner looked
    owner._work(connection)  # type: ignore[arg-type]

    # then it looks again
    owner._waker.wait(0.0)
    assert owner._waker._awake
    owner._waker.close()


def test_a_bug_while_closing_is_told_too(broker: Broker, own: QueueBinding) -> None:
    owner = Owner(endpoints_of(broker), own)
    owner.start()
    bug = ValueError("bug")
    owner.fail_in["_before_close"] = bug

    owner.exit()

    assert not owner.is_alive()
    assert owner.deaths == [bug]
    delete_queue(owner)


def test_a_log_that_raises_keeps_no_end_from_being_told(own: QueueBinding) -> None:
    # given
    owner = Owner([endpoint_of("here")], own, connect=FakeBroker(StandingClock()).connect)
    owner._log = logging.Logger("raises")
    owner._log.addFilter(raise_value_error)
    bug = owner.fail_in["_write"] = RuntimeError("bug")

    # when it runs here, where the test sees what it raises
    with pytest.raises(ValueError, match="raised by the log"):
        owner.run()

    # then
    assert owner.deaths == [bug]
    assert owner._waker._closed


def raise_value_error(record: logging.LogRecord) -> bool:
    raise ValueError("raised by the log")


def test_a_bug_at_the_end_leaves_nobody_waiting_and_nothing_open(own: QueueBinding) -> None:
    # given
    broker = FakeBroker(StandingClock())
    broker.down = QAMConnectionException("nothing listens there")
    owner = Owner([endpoint_of("here")], own, connect=broker.connect)
    bug = owner.fail_in["_on_end"] = RuntimeError("bug")

    # when
    with pytest.raises(RuntimeError) as caught:
        owner.run()

    # then
    assert caught.value is bug
    assert owner._waker._closed
    with pytest.raises(QAMConnectionException, match="nothing listens there"):
        owner.wait_until_open(Deadline(0.0))


def test_each_end_is_told_once(broker: Broker, own: QueueBinding) -> None:
    owner = Owner(endpoints_of(broker), own)
    owner.start()
    assert owner.ends == 0

    owner.exit()
    owner.exit()

    assert owner.ends == 1
    assert owner.deaths == []
    delete_queue(owner)
