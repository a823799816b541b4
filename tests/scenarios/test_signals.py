"""An exception out of a signal handler, at any moment of a call: it ends that call, and no more.

Ctrl-C is such an exception; so are those of ``signal.alarm`` and of the time limits of job queues.
"""

import gc
import itertools
import logging
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, Self

import pytest

from qam import QAMClosedException, QAMProxy, QAMTimeoutException, qam_proxy
from qam._broker import memory, reconnection
from qam._client.result_list import FREE
from qam.exceptions import QAMException, QAMSerializationException
from tests.support.interrupts import struck_at
from tests.support.service import Service, serving
from tests.support.waiting import until

pytestmark = pytest.mark.timeout(300)  # there are hundreds of steps in each

LONG = 60.0  # seconds


class Watched:
    """A proxy of a server that answers, and what must not be left in them."""

    def __init__(self, proxy: QAMProxy, service: Service) -> None:
        self.proxy = proxy
        self.service = service
        self.broker = memory._brokers.get(proxy.amqp_credentials.endpoints()[0].host)
        self.numbers = itertools.count(1)
        self.locks = reentrant_locks_of(proxy)
        #: How many other calls wait meanwhile.
        self.others = 0

    def assert_nothing_is_left(self) -> None:
        """No lock, slot, item or message is left of earlier calls, and the next one works."""
        assert not [lock for lock in self.locks if lock._is_owned()]
        number = str(next(self.numbers))
        assert self.proxy.add("next", number) == f"next{number}"
        until(self._are_all_slots_free, "a slot is left")
        until(lambda: self.proxy.get_num_waiting_callbacks() == self.others, "an item is left")
        publisher = self.proxy.publisher_thread
        assert self.proxy._results.open_calls == self.others
        assert publisher.method_queue == []
        assert publisher._queue._withdrawn == 0

    def _are_all_slots_free(self) -> bool:
        slots = self.proxy.consumer_thread.result_list
        free = set(self.proxy.consumer_thread.free_index_queue)
        unused = [slot for slot in slots if slot["state"] == FREE and slot["call"] is None]
        return len(unused) == len(free) == len(slots) - self.others

    def assert_no_message_is_left(self) -> None:
        """The broker has none, and no consumer has less room than before."""
        until(self._is_the_broker_empty, "a message is left")

    def _is_the_broker_empty(self) -> bool:
        queues = self.broker.queues.values()
        unacknowledged = sum(reader.unacknowledged for queue in queues for reader in queue.readers)
        # Those of later requests may wait for the acknowledgement of one that still runs.
        is_settled = bool(self.others) or not unacknowledged
        return is_settled and not any(queue.waiting for queue in queues)


def reentrant_locks_of(proxy: QAMProxy) -> list[Any]:
    """The reentrant locks of the library that can be reached from *proxy*."""
    seen: dict[int, Any] = {}
    todo: list[Any] = [proxy]
    while todo:
        thing = todo.pop()
        if id(thing) not in seen:
            seen[id(thing)] = thing
            if type(thing).__module__.startswith("qam") or isinstance(thing, (dict, list, tuple)):
                todo += gc.get_referents(thing)
    return [thing for thing in seen.values() if type(thing).__name__ == "RLock"]


@contextmanager
def watched(server_id: str, **kwargs: Any) -> Iterator[Watched]:
    place = f"memory://{server_id}"
    with (
        serving(server_id=server_id, hostname=place) as service,
        QAMProxy(server_id, place, timeout=LONG, **kwargs) as proxy,
    ):
        assert proxy.add(0, 0) == 0
        yield Watched(proxy, service)


@pytest.fixture(autouse=True)
def no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """No rest between connections, of which many are short-lived here."""
    monkeypatch.setattr(reconnection, "_SHORT_LIFE", 0.0)


def strike_each_step(world: Watched, act: Callable[[str], Any]) -> list[str]:
    """Strike *act* at its first step, at its second … at its last; return where that was."""
    struck: list[str] = []
    while not struck or struck[-1]:
        number = len(struck) + 1
        struck.append(struck_at(number, partial(act, str(number))))
        try:
            world.assert_nothing_is_left()
        except BaseException as error:
            error.add_note(f"after a signal at the {struck[-1]}")
            raise
    world.assert_no_message_is_left()
    return struck


def call(proxy: QAMProxy, number: str) -> None:
    proxy.add("struck", number)


def call_in_vain(proxy: QAMProxy, number: str) -> None:
    with suppress(QAMTimeoutException):
        proxy.set_timeout(0.001).nap(0.01)


def call_with_a_lock(proxy: QAMProxy, number: str) -> None:
    with suppress(QAMSerializationException):
        proxy.add(threading.Lock())


def call_back(proxy: QAMProxy, number: str) -> None:
    proxy.callback(len, repr).add("struck", number)


def call_back_in_time(proxy: QAMProxy, number: str) -> None:
    proxy.callback(len, repr).set_timeout(LONG).add("struck", number)


def call_back_twice(proxy: QAMProxy, number: str) -> None:
    callback = proxy.callback(len, repr)
    callback.add("struck", number)
    callback.add("again", number)


def call_back_in_vain(proxy: QAMProxy, number: str) -> None:
    proxy.callback(len, repr).set_timeout(1e-6).nap(0.01)


ACTS = [
    *(call, call_in_vain, call_with_a_lock),
    *(call_back, call_back_in_time, call_back_twice, call_back_in_vain),
]


@pytest.mark.parametrize("act", ACTS, ids=lambda act: act.__name__)
@pytest.mark.parametrize("kwargs", [{}, {"max_queued": 9}, {"persistent": False}], ids=str)
def test_a_signal_at_any_step_of_a_call_leaves_nothing_of_it(
    server_id: str, act: Callable[[QAMProxy, str], None], kwargs: dict[str, Any]
) -> None:
    with watched(server_id, **kwargs) as world:
        struck = strike_each_step(world, partial(act, world.proxy))
    assert len(struck) > 100
    runs = [run for run in world.service.runs if run != (0, 0)]
    assert len(runs) == len(set(runs))


@pytest.mark.parametrize("act", ACTS, ids=lambda act: act.__name__)
@pytest.mark.parametrize("kwargs", [{}, {"max_queued": 9}], ids=str)
def test_nor_of_a_call_among_others(
    server_id: str, act: Callable[[QAMProxy, str], None], kwargs: dict[str, Any]
) -> None:
    with watched(server_id, **kwargs) as world:
        world.proxy.callback(len).hold("other")
        assert world.service.holding.wait(LONG)
        world.others = 1
        strike_each_step(world, partial(act, world.proxy))


def test_nor_of_a_call_whose_stations_are_logged(
    server_id: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "qam.qam_proxy")
    with watched(server_id) as world:
        strike_each_step(world, partial(call, world.proxy))


def test_a_signal_at_any_step_of_close_leaves_what_a_second_close_ends(server_id: str) -> None:
    place = f"memory://{server_id}"
    with serving(server_id=server_id, hostname=place) as service:
        struck: list[str] = []
        while not struck or struck[-1]:
            # given a call and a callback that wait
            proxy, outcomes = QAMProxy(server_id, place), []
            caller = threading.Thread(target=_call_and_note, args=(proxy, outcomes), daemon=True)
            caller.start()
            uid = proxy.callback(outcomes.append, outcomes.append).hold()
            until(lambda proxy=proxy: proxy._results.open_calls == 2)
            threads = [proxy.consumer_thread, proxy.publisher_thread]
            locks = reentrant_locks_of(proxy)
            # when
            struck.append(struck_at(len(struck) + 1, proxy.close))
            # then
            assert not [lock for lock in locks if lock._is_owned()], struck[-1]
            proxy.close()
            caller.join(LONG)
            assert [type(outcome) for outcome in outcomes] == [QAMClosedException] * 2, struck[-1]
            assert proxy.get_callback_state(uid) == 2
            for thread in (*threads, proxy.callback_observer_thread):
                thread.join(LONG)
                assert not thread.is_alive(), struck[-1]
            assert proxy not in qam_proxy._open_proxies
        service.go_on.set()
    assert len(struck) > 100


def _call_and_note(proxy: QAMProxy, outcomes: list[Any]) -> None:
    try:
        outcomes.append(proxy.hold())
    except QAMException as error:
        outcomes.append(error)


# --- real signals, at moments that nobody chooses ------------------------------------------------

#: How many; the row `signals` of tox sends many more than the gate.
REAL_SIGNALS = int(os.environ.get("QAM_TEST_SIGNALS", "500"))
_LATEST = 0.0006  # seconds after the begin; most calls take less


class Struck(Exception):
    """What the signal handler raises, as the time limits of job queues do."""


class Signals:
    """Sends the main thread a signal some time after each :meth:`strike`, until it has ended."""

    def __init__(self) -> None:
        self.struck = 0
        self._armed = self._over = False
        self._go = threading.Semaphore(0)
        self._draw = random.Random(7)
        self._main = threading.get_ident()
        self._thread = threading.Thread(target=self._send, name="signals")

    def __enter__(self) -> Self:
        self._before = signal.signal(signal.SIGUSR1, self._handle)
        self._interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-5)  # so that the signal comes also where the main thread computes
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._over = True
        self._go.release()
        self._thread.join()
        signal.signal(signal.SIGUSR1, self._before)
        sys.setswitchinterval(self._interval)

    def _handle(self, number: int, frame: Any) -> None:
        if self._armed:
            self._armed = False
            self.struck += 1
            raise Struck

    def _send(self) -> None:
        while self._go.acquire() and not self._over:
            time.sleep(max(0.0, self._draw.uniform(-_LATEST, _LATEST)))
            signal.pthread_kill(self._main, signal.SIGUSR1)

    def strike(self, act: Callable[[], object]) -> None:
        """Act, and be struck meanwhile, or not if it takes no time."""
        self._go.release()
        # The latter where it came while arguments were encoded: that might be an error of theirs.
        with suppress(Struck, QAMSerializationException):
            try:
                self._armed = True
                act()
            finally:
                self._armed = False


# Real signals strike by chance, also what is not the library's, such as callbacks of the garbage
# collector.  So these are not in the gate; above each step is struck.
@pytest.mark.signals
@pytest.mark.timeout(600)
@pytest.mark.parametrize("act", [call, call_back_in_time], ids=lambda act: act.__name__)
def test_real_signals_leave_nothing_of_the_calls_that_they_end(
    server_id: str, act: Callable[[QAMProxy, str], None]
) -> None:
    with watched(server_id) as world, Signals() as signals:
        for number in range(REAL_SIGNALS):
            signals.strike(partial(act, world.proxy, str(number)))
            assert world.proxy.add(number, 1) == number + 1
            if number % 100 == 0:
                world.assert_nothing_is_left()
        world.assert_nothing_is_left()
        world.assert_no_message_is_left()
    assert signals.struck


# Python 3.11 handles a signal in a join badly: it releases a lock of the thread, which may just
# have done so, or does so later.  So this is not in the gate.
@pytest.mark.signals
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.timeout(600)
def test_real_signals_leave_nothing_of_a_proxy_that_is_closed(server_id: str) -> None:
    place = f"memory://{server_id}"
    with serving(server_id=server_id, hostname=place), Signals() as signals:
        for _ in range(max(20, REAL_SIGNALS // 10)):
            proxy = QAMProxy(server_id, place)
            uid = proxy.callback(len, repr).add("a", "b")
            with suppress(RuntimeError):
                signals.strike(proxy.close)
            proxy.close()
            assert proxy.get_callback_state(uid) == 2
            assert proxy not in qam_proxy._open_proxies
    assert signals.struck
