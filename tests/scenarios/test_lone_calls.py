"""A call that is alone is written by its caller, whom the connection is lent to, and is safe."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest

from qam import QAMClosedException, QAMException, QAMProxy, QAMServerNotFoundException
from qam._broker import reconnection
from qam._broker.connection_thread import ConnectionThread
from qam._broker.publishing_thread import PublishingThread
from qam._client import call_fates, consumer_thread, waited_calls
from qam._protocol.entities import request_binding
from tests.conftest import Broker
from tests.support.interrupts import interrupted_at
from tests.support.rabbitmq import RabbitMQNode
from tests.support.service import Service, make_server, serving
from tests.support.waiting import until

LONG = 30.0  # seconds; nothing here takes that long unless it is broken
NEVER = 3600.0  # seconds


def writers(thread: ConnectionThread) -> list[str]:
    """The names of the threads that write on the connection of *thread*, from now on."""
    names: list[str] = []
    connection: Any = thread._connection
    write = connection.write

    def noted(messages: Any) -> None:
        names.append(threading.current_thread().name)
        write(messages)

    connection.write = noted
    return names


def rests(thread: ConnectionThread) -> bool:
    """Whether what comes does not wake *thread*."""
    connection = thread._connection
    return connection is not None and connection.rests


def sleeping(thread: PublishingThread) -> PublishingThread:
    """*thread*, as soon as it waits and nothing of what was before will wake it."""

    lent: list[Any] = []

    def look(connection: Any) -> bool:
        lent.append(connection)
        return False  # it was not used, so that it is not handed back, which might wake its owner

    def waits() -> bool:
        told = rests(thread) or not thread._under_way.in_flight
        lent.clear()
        thread._borrow(look)
        return told and not thread._waker._awake and bool(lent)

    until(waits)
    return thread


@contextmanager
def before(owner: Any, name: str, act: Callable[[], None]) -> Iterator[None]:
    """Once, meanwhile: have something done before *owner* does what is called so."""
    original, acts = getattr(owner, name), [act]

    def act_before(*args: Any, **kwargs: Any) -> Any:
        if acts:
            acts.pop()()
        return original(*args, **kwargs)

    setattr(owner, name, act_before)
    try:
        yield
    finally:
        setattr(owner, name, original)
    assert not acts, f"{name} was not called"


# --- who writes ------------------------------------------------------------------------------


@pytest.fixture
def unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody asks a publisher that rests to look again, however long a call may take here."""
    monkeypatch.setattr(waited_calls, "_SOON", NEVER)
    monkeypatch.setattr(consumer_thread, "_LOOK_AGAIN_DELAY", NEVER)


@pytest.mark.usefixtures("unasked")
def test_it_is_written_by_the_thread_that_makes_it(proxy: QAMProxy) -> None:
    names = writers(proxy.publisher_thread)

    for n in range(3):
        sleeping(proxy.publisher_thread)
        assert proxy.add(n, 1) == n + 1
    assert names == [threading.current_thread().name] * 3


def test_its_reply_is_written_by_the_thread_that_ran_its_method(
    broker: Broker, server_id: str
) -> None:
    with make_server(Service(), server_id=server_id, **broker.kwargs) as server:
        server.start()
        with QAMProxy(server_id, timeout=60, **broker.kwargs) as proxy:
            names = writers(server._publisher)

            def is_written_by_the_worker() -> bool:
                sleeping(server._publisher)
                assert proxy.add(1, 2) == 3
                return "ExecuteMethodThread" in names[-1]

            # Between the two the server may have something to tell its siblings.
            until(is_written_by_the_worker)


def test_beside_others_it_is_written_together_with_them(proxy: QAMProxy, service: Service) -> None:
    # given a call that waits for its result
    held = proxy.callback(len).hold("x")
    assert service.holding.wait(LONG)
    names = writers(proxy.publisher_thread)

    # when
    assert proxy.add(1, 2) == 3

    # then
    assert names == [proxy.publisher_thread.name]
    service.go_on.set()
    until(lambda: proxy.get_callback_state(held) == 2)


def test_a_callback_that_is_alone_is_written_by_the_thread_that_makes_it(proxy: QAMProxy) -> None:
    names = writers(sleeping(proxy.publisher_thread))
    results: list[int] = []

    proxy.callback(results.append).add(1, 2)

    until(lambda: results == [3])
    assert names == [threading.current_thread().name]
    # nobody looks again for it, so the publisher does not rest
    until(lambda: proxy.publisher_thread._under_way.in_flight == 0)


def test_the_callbacks_behind_it_are_written_by_the_publisher(
    proxy: QAMProxy, service: Service
) -> None:
    names = writers(proxy.publisher_thread)
    results: list[int] = []
    proxy.callback(results.append).hold(0)
    assert service.holding.wait(LONG)

    for n in range(1, 4):
        proxy.callback(results.append).add(n, 0)
    service.go_on.set()

    until(lambda: len(results) == 4)
    assert set(names[1:]) == {proxy.publisher_thread.name}


def test_while_nothing_can_be_sent_it_waits_in_the_queue(proxy: QAMProxy) -> None:
    # given an alarm of the broker
    publisher = proxy.publisher_thread
    publisher._blocked = True
    results: list[int] = []
    thread = threading.Thread(target=lambda: results.append(proxy.add(1, 2)))
    thread.start()
    until(lambda: publisher.method_queue)

    # when it ends
    publisher._blocked = False
    publisher.wake()

    # then
    thread.join(LONG)
    assert results == [3]


def test_what_the_network_does_not_take_at_once_is_sent_by_the_owner(
    rabbitmq_node: RabbitMQNode, place: dict[str, Any], server_id: str
) -> None:
    large = b"x" * 12_000_000  # more than the buffers of a socket
    with (
        serving(server_id=server_id, **place),
        QAMProxy(server_id, timeout=60, **place) as proxy,
    ):
        names = writers(sleeping(proxy.publisher_thread))
        assert proxy.echo(large) == large
    assert names == [threading.current_thread().name]


# --- something happens in the middle ---------------------------------------------------------


@pytest.mark.parametrize("persistent", [True, False])
def test_a_connection_that_is_lost_under_it_is_opened_again_and_the_call_ends(
    place: dict[str, Any], server_id: str, persistent: bool
) -> None:
    def lose() -> None:
        raise ConnectionResetError("lost under a caller")

    with (
        serving(server_id=server_id, **place) as service,
        QAMProxy(server_id, timeout=60, persistent=persistent, **place) as proxy,
    ):
        assert proxy.add(0, 0) == 0  # whose reply says that the server runs nothing twice
        connection: Any = proxy.publisher_thread._connection
        with before(connection._transport, "write", lose):
            outcome: Any = None
            try:
                outcome = proxy.add(1, 2)
            except QAMException as error:
                outcome = error.executed

        # then nothing that is kept is lost, and of the rest it is said
        assert outcome == 3 if persistent else outcome == "unknown"
        assert proxy.add(3, 4) == 7
        assert service.runs.count((1, 2)) == (1 if persistent else 0)


def test_a_finalizer_that_calls_in_the_middle_is_told_that_it_can_not(proxy: QAMProxy) -> None:
    errors: list[QAMException] = []
    callbacks: list[int] = []

    def finalize() -> None:
        try:
            proxy.add(5, 5)
        except QAMException as error:
            errors.append(error)
        proxy.callback(callbacks.append).add(6, 6)

    # when
    with before(proxy.publisher_thread._requests, "request", finalize):
        assert proxy.add(1, 2) == 3

    # then it would have waited for itself; its callback did not
    assert "use a callback" in str(errors[0])
    assert errors[0].executed == "no"
    until(lambda: callbacks == [12])
    assert proxy.add(1, 3) == 4


def test_another_thread_that_calls_in_the_middle_gets_its_result(proxy: QAMProxy) -> None:
    results: list[int] = []
    other = threading.Thread(target=lambda: results.append(proxy.add(5, 5)))

    def call_elsewhere() -> None:
        other.start()
        until(lambda: proxy._results.open_calls == 2)

    with before(proxy.publisher_thread._requests, "request", call_elsewhere):
        assert proxy.add(1, 2) == 3
    other.join(LONG)
    assert results == [10]


def test_close_in_the_middle_ends_it(proxy: QAMProxy) -> None:
    closing = threading.Thread(target=proxy.close)

    def close() -> None:
        closing.start()
        until(lambda: proxy.publisher_thread.kill)

    with (
        before(proxy.publisher_thread._requests, "request", close),
        pytest.raises(QAMException, match="closed"),
    ):
        proxy.add(1, 2)
    closing.join(LONG)
    assert not closing.is_alive()


def test_nobody_borrows_from_who_is_at_work(proxy: QAMProxy, service: Service) -> None:
    """Neither another thread, which need not wait then, nor a finalizer in the owner itself."""
    publisher = proxy.publisher_thread
    tries: list[bool] = []

    def borrow() -> None:
        tries.append(publisher._borrow(lambda connection: True))

    def borrow_here_and_elsewhere() -> None:
        borrow()
        thread = threading.Thread(target=borrow)
        thread.start()
        thread.join(LONG)

    with before(publisher, "_write", borrow_here_and_elsewhere):
        publisher.wake()
        until(lambda: len(tries) == 2)
    assert tries == [False, False]
    assert proxy.add(1, 2) == 3


def test_nothing_is_lent_after_the_owner_died(
    broker: Broker, server_id: str, caplog: pytest.LogCaptureFixture
) -> None:
    with QAMProxy(server_id, **broker.kwargs) as proxy:
        publisher = proxy.publisher_thread

        def die() -> None:
            raise ValueError("a bug")

        with before(publisher, "_write", die):
            publisher.wake()
            publisher.join(LONG)
        assert not publisher._borrow(lambda connection: True)
        with pytest.raises(QAMClosedException, match="a bug"):
            proxy.add(1, 2)
    assert "died of an internal error" in caplog.text


def test_a_call_after_the_end_says_so_in_whatever_thread(proxy: QAMProxy) -> None:
    # given threads, of which some have the ident of one of the proxy's
    proxy.close()
    errors: list[BaseException] = []

    def call() -> None:
        try:
            proxy.add(1, 2)
        except QAMException as error:
            errors.append(error)

    for _ in range(8):
        threads = [threading.Thread(target=call) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LONG)
    assert {type(error) for error in errors} == {QAMClosedException}


def test_ctrl_c_as_the_connection_is_acquired_gives_it_back(
    proxy: QAMProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher = proxy.publisher_thread
    in_use = publisher._loan.in_use

    class Struck:
        def acquire(self, blocking: bool) -> bool:
            in_use.acquire(blocking)
            raise KeyboardInterrupt

        def release(self) -> None:
            in_use.release()

        def _is_owned(self) -> bool:
            return bool(in_use._is_owned())

        def __enter__(self) -> None:  # the owner's turns go on
            in_use.acquire()

        def __exit__(self, *exc_info: object) -> None:
            in_use.release()

    with monkeypatch.context() as patch:
        patch.setattr(publisher._loan, "in_use", Struck())
        with pytest.raises(KeyboardInterrupt):
            publisher._borrow(lambda connection: True)
    # then its owner can go on
    thread = threading.Thread(target=lambda: results.append(proxy.add(1, 2)))
    results: list[int] = []
    thread.start()
    thread.join(LONG)
    assert results == [3]


@pytest.mark.parametrize("persistent", [True, False])
def test_ctrl_c_at_any_moment_of_it_spoils_no_other(
    broker: Broker, server_id: str, monkeypatch: pytest.MonkeyPatch, persistent: bool
) -> None:
    # no rest between connections, of which many are short-lived here
    monkeypatch.setattr(reconnection, "_SHORT_LIFE", 0.0)
    struck: list[str] = []
    with (
        serving(server_id=server_id, **broker.kwargs) as service,
        QAMProxy(server_id, timeout=60, persistent=persistent, **broker.kwargs) as proxy,
    ):
        assert proxy.add(0, 0) == 0
        while not struck or struck[-1]:
            # when
            number = len(struck) + 1
            sleeping(proxy.publisher_thread)
            struck.append(interrupted_at(number, partial(proxy.add, "struck", str(number))))
            # then
            assert proxy.add(number, 1) == number + 1
        assert proxy._results.open_calls == 0
        # no message is taken for one whose confirm is still to come
        until(lambda: proxy.add(0, 1) and proxy.publisher_thread._under_way.in_flight <= 1)
    assert "Loan.borrow" in struck
    assert "RequestMaker.request" in struck
    assert all(service.runs.count(run) == 1 for run in service.runs if run != (0, 1))


# --- what the broker says of it --------------------------------------------------------------


@pytest.fixture
def resting(place: dict[str, Any], server_id: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A proxy whose publisher rests after a call until the next one asks it to look."""
    monkeypatch.setattr(consumer_thread, "_LOOK_AGAIN_DELAY", NEVER)
    with (
        serving(server_id=server_id, **place) as service,
        QAMProxy(server_id, timeout=60, **place) as proxy,
    ):
        until(lambda: proxy.add(1, 2) and rests(proxy.publisher_thread))
        yield proxy, service


Resting = tuple[QAMProxy, Service]


def test_confirms_are_left_unread_until_there_is_time(
    resting: Resting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waited_calls, "_SOON", LONG)
    proxy, _ = resting
    publisher = proxy.publisher_thread
    until(lambda: proxy.add(1, 1) and publisher._under_way.in_flight >= 3)

    publisher.look_again()

    until(lambda: publisher._under_way.in_flight == 0)
    assert not rests(publisher)


def test_a_callback_ends_the_rest_since_nobody_looks_again_for_it(resting: Resting) -> None:
    proxy, _ = resting
    results: list[int] = []

    proxy.callback(results.append).add(3, 4)

    until(lambda: proxy.publisher_thread._under_way.in_flight == 0)
    until(lambda: results == [7])


def test_half_a_second_later_the_publisher_looks_by_itself(proxy: QAMProxy) -> None:
    assert proxy.add(1, 2) == 3
    until(
        lambda: (
            proxy.publisher_thread._under_way.in_flight == 0 and not rests(proxy.publisher_thread)
        )
    )


def test_a_queue_that_was_deleted_meanwhile_is_told(
    place: dict[str, Any],
    rabbitmq_node: RabbitMQNode,
    server_id: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(consumer_thread, "_LOOK_AGAIN_DELAY", NEVER)
    monkeypatch.setattr(call_fates, "_MOST_RETURNS", 3)  # the server does not come back
    with (
        make_server(Service(), server_id=server_id, **place) as server,
        QAMProxy(server_id, timeout=60, **place) as proxy,
    ):
        server.start()
        until(lambda: proxy.add(1, 2) and rests(proxy.publisher_thread))
        server.close()  # else it declares the queue anew
        rabbitmq_node.delete_queue(request_binding(server_id).queue)

        with pytest.raises(QAMServerNotFoundException):
            proxy.add(1, 2)


def test_a_connection_that_the_broker_closes_meanwhile_is_opened_again(
    resting: Resting, rabbitmq_node: RabbitMQNode
) -> None:
    proxy, service = resting
    rabbitmq_node.close_all_connections("for the test")

    assert proxy.add(5, 6) == 11
    assert service.runs.count((5, 6)) == 1


def test_a_call_that_lasts_has_its_confirm_read(resting: Resting) -> None:
    proxy, service = resting
    thread = threading.Thread(target=proxy.hold)
    thread.start()
    until(lambda: proxy.publisher_thread._under_way.in_flight == 0)
    service.go_on.set()
    thread.join(LONG)


# --- acks of replies -------------------------------------------------------------------------


def acks(proxy: QAMProxy) -> list[tuple[int, bool]]:
    """What the proxy acknowledges from now on: tags, and whether all up to them."""
    made: list[tuple[int, bool]] = []
    connection: Any = proxy.consumer_thread._connection
    acknowledge = connection.acknowledge

    def noted(tag: int, multiple: bool = False) -> None:
        made.append((tag, multiple))
        acknowledge(tag, multiple)

    connection.acknowledge = noted
    return made


def test_replies_wait_for_others_to_be_acknowledged_with(
    proxy: QAMProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer_thread, "_ACKNOWLEDGE_DELAY", NEVER)
    made = acks(proxy)

    assert [proxy.add(n, 0) for n in range(20)] == list(range(20))
    assert made == []


def test_replies_are_acknowledged_all_at_once_and_before_long(proxy: QAMProxy) -> None:
    made = acks(proxy)
    results: list[int] = []
    for n in range(20):
        proxy.callback(results.append).add(n, 0)

    until(lambda: len(results) == 20 and made and made[-1] == (20, True))
    assert all(multiple for _, multiple in made)
