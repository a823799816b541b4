"""Filters and handlers of the application run apart from the threads of the library."""

import logging
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from qam import QAMProxy
from qam._common import logs
from qam._common.deadline import Deadline
from qam._common.log_thread import LogThread, log_thread
from qam._common.own_threads import OwnThread, in_own_thread
from tests.conftest import Broker
from tests.support.rabbitmq import RabbitMQNode
from tests.support.service import serving
from tests.support.waiting import until

LONG = 60.0
SHORT = 10.0  # for what would never end if it were broken


class Kept(logging.Handler):
    """Keeps records, and the thread that brought each; does what the test says with each."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self.threads: list[threading.Thread] = []
        self.do: Callable[[logging.LogRecord], object] = lambda record: None

    def handle(self, record: logging.LogRecord) -> Any:
        self.do(record)
        self.threads.append(threading.current_thread())
        self.records.append(record)

    @property
    def messages(self) -> list[str]:
        return [record.getMessage() for record in self.records]


@pytest.fixture
def log() -> logging.Logger:
    return logs.get_logger("qam.test")


@pytest.fixture
def kept(log: logging.Logger) -> Iterator[Kept]:
    """What reaches the application's logger of that name."""
    handler, logger = Kept(), logging.getLogger(log.name)
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


def in_thread_of_ours(do: Callable[[], object]) -> OwnThread:
    thread = OwnThread(target=do, name="owner")
    thread.start()
    thread.join()
    return thread


def test_a_thread_of_the_application_logs_for_itself(log: logging.Logger, kept: Kept) -> None:
    assert not in_own_thread()
    log.warning("here")
    assert kept.threads == [threading.current_thread()]
    assert kept.records[0].filename == "test_log_thread.py"


def test_what_a_thread_of_the_library_logs_is_handled_by_another(
    log: logging.Logger, kept: Kept
) -> None:
    began = time.time()
    thread = in_thread_of_ours(lambda: log.warning("text %s", "one", extra={"more": 1}))
    logs.flush(LONG)
    # then it tells of the thread that logged, and of its time and place
    [record], [handled_by] = kept.records, kept.threads
    assert handled_by not in (thread, threading.current_thread())
    assert (record.threadName, record.thread) == ("owner", thread.ident)
    assert began <= record.created <= time.time()
    assert (record.getMessage(), vars(record)["more"]) == ("text one", 1)
    assert record.filename == "test_log_thread.py"


@pytest.mark.parametrize("error", [ValueError("filter"), SystemExit("filter")])
def test_a_handler_that_raises_ends_nothing(
    log: logging.Logger, kept: Kept, error: BaseException, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(record: logging.LogRecord) -> None:
        kept.do = lambda record: None
        raise error

    kept.do = fail
    ended = []

    def log_twice() -> None:
        log.warning("first")
        log.warning("second")
        ended.append(True)

    in_thread_of_ours(log_twice)
    logs.flush(LONG)
    assert ended == [True]
    assert kept.messages == ["second"]
    assert "a log filter or handler raised" in capsys.readouterr().err


def test_a_handler_that_blocks_stops_nobody_and_what_is_dropped_is_counted(
    log: logging.Logger, kept: Kept, caplog: pytest.LogCaptureFixture
) -> None:
    # given a handler that blocks
    go_on, blocks = threading.Event(), threading.Event()

    def block(record: logging.LogRecord) -> None:
        blocks.set()
        assert go_on.wait(LONG)

    kept.do = block

    def log_much() -> None:
        log.warning("number 0")
        assert blocks.wait(LONG)
        for number in range(1, 1501):
            log.warning("number %d", number)

    # when
    in_thread_of_ours(log_much)
    logs.flush(0.01)  # nor is this waited for
    go_on.set()
    # then
    logs.flush(LONG)
    assert kept.messages == [f"number {number}" for number in range(1001)]
    assert "500 log records of qam were dropped" in caplog.text


def test_the_applications_record_factory_makes_the_records(
    log: logging.Logger, kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given one that knows no thread but those of the application
    of_application = threading.local()
    of_application.request_id = 7
    makers = []

    def make(*args: Any, **kwargs: Any) -> logging.LogRecord:
        makers.append(threading.current_thread())
        record = logging.LogRecord(*args, **kwargs)
        record.request_id = getattr(of_application, "request_id", "none")
        return record

    monkeypatch.setattr(logging, "_logRecordFactory", make)
    # when
    thread = in_thread_of_ours(lambda: log.warning("text"))
    logs.flush(LONG)
    log.warning("text")
    # then
    assert [vars(record)["request_id"] for record in kept.records] == ["none", 7]
    assert thread not in makers


def test_received_texts_are_made_printable_before_they_wait(
    log: logging.Logger, kept: Kept
) -> None:
    def fail() -> None:
        try:
            raise ValueError("a\x1b[31m")
        except ValueError:
            log.exception("text %s", "a\n\x1b[31m")

    in_thread_of_ours(fail)
    logs.flush(LONG)
    [record] = kept.records
    assert "\x1b" not in record.getMessage() + (record.exc_text or "\x1b")
    assert "ValueError" in (record.exc_text or "")


def test_a_handler_may_log_and_close_as_it_likes(log: logging.Logger, kept: Kept) -> None:
    def log_again(record: logging.LogRecord) -> None:
        assert log_thread.is_here
        kept.do = lambda record: None
        log.warning("from the handler")
        logs.flush(LONG)  # as close() does: it can't wait for itself

    kept.do = log_again
    in_thread_of_ours(lambda: log.warning("text"))
    logs.flush(LONG)
    assert kept.messages == ["from the handler", "text"]


def test_a_forked_child_begins_anew(log: logging.Logger, kept: Kept) -> None:
    in_thread_of_ours(lambda: log.warning("parent"))
    logs.flush(LONG)
    child = os.fork()
    if not child:
        try:
            in_thread_of_ours(lambda: log.warning("child"))
            logs.flush(LONG)
            os._exit(0 if kept.messages == ["parent", "child"] else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0


def test_nothing_is_waited_for_before_the_first_record() -> None:
    LogThread().flush(LONG)


def test_no_thread_is_left_once_all_is_handled(log: logging.Logger, kept: Kept) -> None:
    for number in range(3):
        in_thread_of_ours(lambda number=number: log.warning("number %d", number))  # type: ignore
        logs.flush(LONG)
        assert "qam log thread" not in {each.name for each in threading.enumerate()}
    assert kept.messages == ["number 0", "number 1", "number 2"]


def test_a_record_that_comes_as_the_thread_ends_is_handled(
    log: logging.Logger, kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a thread that waits for nothing
    monkeypatch.setattr("qam._common.log_thread._IDLE_TIME", 0.0)

    def log_now_and_then() -> None:
        for number in range(200):
            log.warning("number %d", number)
            time.sleep(0.0002)

    # when records come all the time
    in_thread_of_ours(log_now_and_then)
    # then
    until(lambda: len(kept.records) == 200)
    logs.flush(LONG)


@pytest.mark.parametrize("error", [RuntimeError("can't start new thread"), MemoryError()])
def test_where_no_thread_can_start_nothing_is_raised_and_a_later_record_tries_again(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    thread, handled = LogThread(), []
    monkeypatch.setattr("qam._common.log_thread._RESTART_DELAY", 0.01)

    def fail(self: threading.Thread) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        thread.put(lambda: handled.append(1))
    # when
    time.sleep(0.02)  # more than it waits until another try
    thread.put(lambda: handled.append(2))
    # then
    until(lambda: handled == [1, 2])
    thread.flush(LONG)


def test_a_record_that_is_queued_while_the_thread_is_started_and_ends_is_handled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # given a thread that has ended again before its start returns
    thread, handled, start = LogThread(), [], threading.Thread.start

    def start_and_end(self: threading.Thread) -> None:
        monkeypatch.setattr(threading.Thread, "start", start)
        self.start()
        thread.flush(LONG)
        # when another record comes then, whose thread finds that one is being started
        thread.put(lambda: handled.append(2))

    monkeypatch.setattr(threading.Thread, "start", start_and_end)
    thread.put(lambda: handled.append(1))
    # then
    until(lambda: handled == [1, 2])
    thread.flush(LONG)


# --- loggers of the application's own class -----------------------------------------------


def log_to(logger_class: type[logging.Logger], handler: logging.Handler) -> logging.Logger:
    """A log of the library whose application has loggers of *logger_class*."""
    usual = logging.getLoggerClass()
    logging.setLoggerClass(logger_class)
    try:
        log = logs.get_logger(f"qam.test.{uuid.uuid4().hex}")
    finally:
        logging.setLoggerClass(usual)
    logging.getLogger(log.name).addHandler(handler)
    return log


class NamesAll(logging.Logger):
    """Makes its records with all arguments named."""

    def _log(self, level: int, msg: object, args: Any, **options: Any) -> None:  # type: ignore
        extra = options.get("extra")
        record = self.makeRecord(
            name=self.name,
            level=level,
            fn="some file",
            lno=1,
            msg=msg,
            args=args,
            exc_info=None,
            func="here",
            extra=extra,
            sinfo=None,
        )
        self.handle(record)


class LeavesDefaultsOut(logging.Logger):
    """Makes its records with the arguments that have no default."""

    def _log(self, level: int, msg: object, args: Any, **options: Any) -> None:  # type: ignore
        self.handle(self.makeRecord(self.name, level, "some file", 1, msg, args, None))


@pytest.mark.parametrize("logger_class", [NamesAll, LeavesDefaultsOut])
def test_a_logger_may_make_its_records_in_its_own_way(logger_class: type[logging.Logger]) -> None:
    kept = Kept()
    log = log_to(logger_class, kept)

    log.warning("here %d", 1)
    in_thread_of_ours(lambda: log.warning("there %d", 2))
    logs.flush(LONG)

    assert kept.messages == ["here 1", "there 2"]


class SaysWhere(logging.Logger):
    """Makes records that say in which thread they are made."""

    def makeRecord(self, *args: Any, **kwargs: Any) -> logging.LogRecord:  # noqa: N802
        record = super().makeRecord(*args, **kwargs)
        record.made_in = threading.current_thread()
        return record


def test_a_logger_makes_the_records_apart_from_the_threads_of_the_library() -> None:
    kept = Kept()
    log = log_to(SaysWhere, kept)

    log.warning("here")
    in_thread_of_ours(lambda: log.warning("there"))
    logs.flush(LONG)

    assert [vars(record)["made_in"] for record in kept.records] == kept.threads
    assert [record.threadName for record in kept.records] == ["MainThread", "owner"]
    assert {record.filename for record in kept.records} == {"test_log_thread.py"}


class Raises(logging.Logger):
    """Has a bug in each of its methods, once that is asked for."""

    raises = False

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if Raises.raises and callable(found):
            raise SystemExit(f"a bug in {name}()")
        return found


def test_a_logger_that_raises_ends_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log, ended = log_to(Raises, Kept()), []

    def log_and_end() -> None:
        assert log.isEnabledFor(logging.WARNING)
        log.warning("text")
        ended.append(True)

    monkeypatch.setattr(Raises, "raises", True)
    in_thread_of_ours(log_and_end)
    logs.flush(LONG)

    assert ended == [True]
    assert "SystemExit: a bug in" in capsys.readouterr().err


class HasNoText(Exception):
    """An error of the application, with a bug."""

    def __str__(self) -> str:
        raise SystemExit("no text")


def test_an_error_whose_text_raises_ends_nothing(
    log: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    ended = []

    def log_and_end() -> None:
        log.error("text: %s", HasNoText())
        ended.append(True)

    in_thread_of_ours(log_and_end)
    logs.flush(LONG)

    assert ended == [True]
    assert "SystemExit: no text" in capsys.readouterr().err


def test_a_logger_that_takes_long_to_be_made_stops_nobody(log: logging.Logger, kept: Kept) -> None:
    # given one that is made, under the lock of logging, while a thread of the library logs
    alive = []

    class IsMadeSlowly(logging.Logger):
        def __init__(self, name: str) -> None:
            super().__init__(name)
            thread = OwnThread(target=lambda: log.warning("text"), name="owner")
            thread.start()
            thread.join(SHORT)
            alive.append(thread.is_alive())

    logging.getLogger(log.name).setLevel(logging.INFO)  # whether it is enabled has to be found out

    # when
    log_to(IsMadeSlowly, Kept())

    # then
    assert alive == [False]
    logging.getLogger(log.name).setLevel(logging.NOTSET)
    logs.flush(LONG)
    assert kept.messages == ["text"]


# --- flushing -----------------------------------------------------------------------------


class Blocked:
    """A log thread that has a record whose handler blocks until it may go on."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.handled: list[int] = []
        self.thread = LogThread()
        blocks = threading.Event()
        self.thread.put(lambda: (blocks.set(), self.go_on.wait(LONG)))
        assert blocks.wait(LONG)

    def put(self, number: int) -> None:
        """Queue a record that takes a moment: it shows whether it was waited for."""
        self.thread.put(lambda: (time.sleep(0.05), self.handled.append(number)))

    def wait_for_queued(self, number: int) -> None:
        until(lambda: self.thread._jobs.qsize() == number)


def log_threads() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == "qam log thread"]


def test_a_flush_that_was_given_up_does_not_cut_a_later_one_short() -> None:
    # given
    blocked = Blocked()
    blocked.thread.flush(0.0)
    blocked.put(1)
    blocked.go_on.set()
    # when
    blocked.thread.flush(LONG)
    # then
    assert blocked.handled == [1]
    assert log_threads() == []


def test_each_of_two_flushes_at_once_waits_for_all_that_was_queued_before_it() -> None:
    # given a record that comes between the two
    blocked = Blocked()
    seen: list[tuple[list[int], list[threading.Thread]]] = []
    first = threading.Thread(target=lambda: blocked.thread.flush(LONG))

    def flush_and_look() -> None:
        blocked.thread.flush(LONG)
        seen.append((blocked.handled[:], log_threads()))

    second = threading.Thread(target=flush_and_look)
    first.start()
    blocked.wait_for_queued(1)
    blocked.put(1)
    second.start()
    blocked.wait_for_queued(3)
    # when
    blocked.go_on.set()
    first.join(LONG)
    second.join(LONG)
    # then
    assert seen == [([1], [])]


def test_a_thread_that_is_about_to_end_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    # given one that has handled all, and is not at its end yet
    monkeypatch.setattr("qam._common.log_thread._IDLE_TIME", 0.0)
    about_to_end, go_on = threading.Event(), threading.Event()

    class EndsSlowly(LogThread):
        def _start(self) -> None:
            if threading.current_thread() in log_threads():
                about_to_end.set()
                assert go_on.wait(LONG)
            super()._start()

    thread = EndsSlowly()
    thread.put(lambda: None)
    assert about_to_end.wait(LONG)
    threading.Timer(0.05, go_on.set).start()
    # when
    thread.flush(LONG)
    # then
    assert log_threads() == []


def test_where_no_thread_can_start_a_flush_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    # given
    thread, deadline = LogThread(), Deadline(LONG)

    def fail(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", fail)
    thread.put(lambda: None)
    # when
    thread.flush(2 * LONG)
    # then
    assert not deadline.expired


# --- Ctrl-C while the thread is being started ---------------------------------------------


class TestAStartThatIsInterrupted:
    """Costs no record, and none of those that come later."""

    @pytest.fixture
    def interrupt(self, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
        """Have the next start of a thread interrupted, after the test did *before* with it."""
        start = threading.Thread.start

        def interrupt(before: Callable[[threading.Thread], object] = id) -> None:
            def start_and_be_interrupted(thread: threading.Thread) -> None:
                monkeypatch.setattr(threading.Thread, "start", start)
                before(thread)
                raise KeyboardInterrupt

            monkeypatch.setattr(threading.Thread, "start", start_and_be_interrupted)

        return interrupt

    def test_before_there_is_a_thread(self, interrupt: Callable[..., None]) -> None:
        thread, handled = LogThread(), []
        interrupt()

        with pytest.raises(KeyboardInterrupt):
            thread.put(lambda: handled.append(1))
        thread.put(lambda: handled.append(2))
        thread.flush(LONG)

        assert handled == [1, 2]

    def test_when_there_is_one(self, interrupt: Callable[..., None]) -> None:
        thread, handled = LogThread(), []
        interrupt(threading.Thread.start)

        with pytest.raises(KeyboardInterrupt):
            thread.put(lambda: handled.append(1))
        thread.put(lambda: handled.append(2))
        thread.flush(LONG)

        assert handled == [1, 2]
        assert log_threads() == []

    def test_when_there_is_one_that_begins_late(self, interrupt: Callable[..., None]) -> None:
        # given one that begins after another one took its place
        blocked, late = Blocked(), list[threading.Thread]()
        thread = LogThread()
        interrupt(late.append)
        with pytest.raises(KeyboardInterrupt):
            thread.put(lambda: blocked.go_on.wait(LONG))
        thread.put(lambda: blocked.handled.append(1))

        # when
        late[0].start()
        late[0].join(LONG)

        # then it leaves the records to that one
        assert not late[0].is_alive()
        assert blocked.handled == []
        blocked.go_on.set()
        thread.flush(LONG)
        assert blocked.handled == [1]
        blocked.thread.flush(LONG)

    def test_when_the_lock_was_just_taken(self) -> None:
        # given
        thread, handled, starting = LogThread(), [], threading.RLock()

        class InterruptedLock:
            release, _is_owned = starting.release, starting._is_owned  # type: ignore[attr-defined]

            def acquire(self, blocking: bool) -> bool:
                starting.acquire(blocking)
                thread._starting = starting
                raise KeyboardInterrupt

        thread._starting = InterruptedLock()

        # when
        with pytest.raises(KeyboardInterrupt):
            thread.put(lambda: handled.append(1))

        # then another thread can take it
        in_thread_of_ours(lambda: thread.put(lambda: handled.append(2)))
        until(lambda: handled == [1, 2])
        thread.flush(LONG)


# --- the whole ----------------------------------------------------------------------------


@pytest.fixture
def root() -> Iterator[Kept]:
    handler = Kept()
    logging.getLogger().addHandler(handler)
    yield handler
    logging.getLogger().removeHandler(handler)


def test_a_filter_that_raises_costs_neither_proxy_nor_server(
    rabbitmq_node: RabbitMQNode, server_id: str, root: Kept, capsys: pytest.CaptureFixture[str]
) -> None:
    # given
    place: dict[str, Any] = {"hostname": rabbitmq_node.host, "port": rabbitmq_node.port}

    def fail(record: logging.LogRecord) -> None:
        raise AttributeError("request_id")

    with serving(server_id=server_id, **place), QAMProxy(server_id, **place) as proxy:
        assert proxy.add(1, 2) == 3
        root.do = fail
        # when all of them have something to log
        rabbitmq_node.close_all_connections("test")
        # then
        assert proxy.set_timeout(LONG).add(3, 4) == 7
        logs.flush(LONG)
        assert "AttributeError: request_id" in capsys.readouterr().err
        root.do = lambda record: None


def test_a_handler_that_makes_calls_by_the_proxy_is_served(
    broker: Broker, server_id: str, root: Kept
) -> None:
    results = []
    with (
        serving(server_id=server_id, **broker.kwargs),
        QAMProxy(server_id, **broker.kwargs) as proxy,
    ):

        def call(record: logging.LogRecord) -> None:
            root.do = lambda record: None
            results.append(proxy.set_timeout(LONG).add(1, 2))

        root.do = call
        # when a thread of the library logs, as for a callback without an error function
        proxy.callback(len).fail("text")
        # then
        until(lambda: results)
        assert results == [3]
