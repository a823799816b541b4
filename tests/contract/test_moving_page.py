"""The page on moving from 0.2.x: its code before and after, with a 0.2.x peer on the other side."""

import re
import threading
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import kombu
import pytest

import qam
from qam import QAMProxy
from tests.contract.moving import Application, Point, Tools
from tests.contract.test_readme import _PRINTS
from tests.support.peer_0_2 import entities, loads
from tests.support.rabbitmq import RabbitMQNode
from tests.support.waiting import until

PAGE = (Path(__file__).parents[2] / "docs/moving.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^### (.+)\n((?:(?!^##).*\n)*)", PAGE, re.MULTILINE))
IN_PAIRS = {heading: text for heading, text in SECTIONS.items() if "Before:" in text}


def pair(heading: str) -> tuple[str, str]:
    """The code before and after, of one section."""
    before, after = re.findall(r"```python\n(.*?)```", SECTIONS[heading], re.DOTALL)
    return before, after


@pytest.fixture
def application(rabbitmq_node: RabbitMQNode, server_id: str) -> Iterator[Application]:
    application = Application(rabbitmq_node, server_id)
    yield application
    application.close()


BEFORE, AFTER = 0, 1


def test_each_section_has_its_code_before_and_after_and_a_test() -> None:
    source = Path(__file__).read_text(encoding="utf-8")

    assert len(IN_PAIRS) >= 9
    for heading in IN_PAIRS:
        assert len(pair(heading)) == 2
        assert f'pair("{heading}")' in source


# --- what changes without an error ------------------------------------------------------------


def test_an_old_server_can_read_what_comes_with_protocol_2_and_nothing_else(
    application: Application, rabbitmq_node: RabbitMQNode
) -> None:
    before, after = pair("Old servers and pickle")
    request = entities(application.server_id, "unused")[0]
    new_proxy = partial(QAMProxy, timeout=60)

    def proxy(server_id: str, hostname: str, **options: Any) -> QAMProxy:
        return application._keep(new_proxy(application.server_id, rabbitmq_node.url, **options))

    def run(code: str) -> None:
        with suppress(qam.QAMClosedException):
            application.run(code, QAMProxy=proxy, print=printed.append)

    printed: list[Any] = []
    # given a queue, and nobody who takes the request of the code before
    with kombu.Connection(rabbitmq_node.url) as connection:
        queue = request(connection.channel())
        queue.declare()
        thread = threading.Thread(target=run, args=[before])
        thread.start()
        until(lambda: rabbitmq_node.queues()[queue.name] == 1)
        body = queue.get(no_ack=True).body
    with pytest.raises(AssertionError, match="a Python 2 peer can't read it"):
        loads(bytes(body), "pickle")
    application.close()
    thread.join(60)
    # when
    application.old_server(add=lambda a, b: a + b)
    run(after)
    # then
    assert printed == [5]


@pytest.mark.parametrize(("which", "meet_up"), [(BEFORE, False), (AFTER, True)])
def test_more_methods_than_workers_wait_for_each_other(
    application: Application, which: int, meet_up: bool
) -> None:
    # given methods that go on when 33 of them are there
    meeting = threading.Barrier(33)

    def meet() -> str:
        try:
            meeting.wait(60 if meet_up else 0.5)
        except threading.BrokenBarrierError:
            return "missed"
        return "met"

    server = application.run(pair("32 methods at once")[which], meet=meet).server
    server.start()
    client = application.old_client()
    # when
    for number in range(33):
        client.send("meet", id=number)
    results = {reply["result"] for reply in client.receive_many(33)}
    # then
    assert results == {"met" if meet_up else "missed"}


def read(path: str) -> bytes:
    return Path(path).read_bytes()


def test_exceptions_with_json(application: Application) -> None:
    before, after = pair("Exceptions with JSON")
    # given an old server, for which the code before was written
    old = application.old_server("json", read=read)
    proxy = QAMProxy(application.server_id, application._node.url, serializer="json", timeout=60)
    with proxy:
        with pytest.raises(Exception, match="No such file") as raised:
            proxy.read("/no/such/file")
        assert type(raised.value) is Exception
    old.close()
    application._made.remove(old)
    # when the server is a new one
    with application.server(hostname="localhost", server_id="qamserver", serializer="json") as new:
        new.register_function(read)
        new.start()
        new_proxy = application.proxy("qamserver", "localhost", serializer="json")
        # then
        with pytest.raises(ValueError, match="expected 3, got 2"):
            application.run(before, proxy=new_proxy)
        told = application.run(after.replace("try:", "told = None\ntry:"), proxy=new_proxy)
        assert (told.number, told.filename) == (2, "/no/such/file")
        # and an old client gets what it always got
        reply = application.old_client("json").call("read", "/no/such/file")
        assert reply["result"] == [2, "No such file or directory", "/no/such/file"]


@pytest.mark.parametrize(("which", "found"), [(BEFORE, False), (AFTER, True)])
def test_attributes_of_an_instance_are_served_if_they_are_named(
    application: Application, which: int, found: bool
) -> None:
    server = application.server(hostname="localhost", server_id="qamserver")
    application.run(pair("What register_class serves")[which], server=server, Tools=Tools)
    server.start()
    client = application.old_client()

    assert client.call("tools.add", 2, 3)["result"] == 5
    reply = client.call("tools.double", 4)
    if found:
        assert reply["result"] == 8
    else:
        assert reply["internal_exception"] == 1
        assert "'tools.double'" in reply["result"]


@pytest.mark.parametrize(("which", "notes"), [(BEFORE, []), (AFTER, ["something happened"])])
def test_a_call_that_timed_out_does_not_run_later_and_one_that_is_sent_does(
    application: Application, which: int, notes: list[str]
) -> None:
    # given a server that is known, and not running
    application.server(hostname="localhost", server_id="qamserver")
    proxy = application.proxy("qamserver", "localhost")
    names = {"QAMTimeoutException": qam.QAMTimeoutException, "send": qam.send}
    # when
    application.run(pair("Requests whose time is up")[which], proxy=proxy, **names)
    # and a server comes, and has answered what came after that
    noted: list[str] = []
    server = application.server(hostname="localhost", server_id="qamserver")
    server.register_function(noted.append, "note")
    server.start()
    proxy.set_timeout(60).note("the end")
    # then
    until(lambda: len(noted) == len(notes) + 1)
    assert sorted(noted) == sorted([*notes, "the end"])


def distance(point: Point) -> float:
    return (point.x**2 + point.y**2) ** 0.5


@pytest.mark.parametrize(("which", "answered"), [(BEFORE, False), (AFTER, True)])
def test_an_object_of_an_old_client_is_built_if_its_class_is_trusted(
    application: Application, which: int, answered: bool, caplog: pytest.LogCaptureFixture
) -> None:
    server = application.run(pair("Old clients that send objects")[which], distance=distance).server
    server.register_function(pow)
    server.start()
    client = application.old_client()
    # when
    client.send("distance", Point(3, 4), id=1)
    client.send("pow", 2, 3, id=2)
    # then the first one gets no reply where its class is not trusted
    ids = {reply["id"] for reply in client.receive_many(2 if answered else 1)}
    assert ids == ({1, 2} if answered else {2})
    warned = any("a request was dropped: " in record.getMessage() for record in caplog.records)
    assert warned is not answered


# --- what raises an error ------------------------------------------------------------------------


def test_a_result_is_built_if_its_class_is_trusted(application: Application) -> None:
    before, after = pair("Classes that are not trusted")
    server = application.server(hostname="localhost", server_id="qamserver")
    server.register_function(lambda: Point(0, 0), "middle")
    server.start()

    with pytest.raises(qam.QAMSerializationException, match=r"call qam\.trust\(.*Point\)"):
        application.run(before)
    assert application.run(after).point == Point(0, 0)


def test_a_result_of_an_old_server_is_built_if_its_class_is_trusted(
    application: Application, caplog: pytest.LogCaptureFixture
) -> None:
    before, after = pair("Classes that are not trusted")
    application.old_server(middle=lambda: Point(0, 0))

    with pytest.raises(qam.QAMTimeoutException):
        application.run(before, QAMProxy=partial(application.proxy, timeout=0.5))
    until(lambda: any("does not trust" in record.getMessage() for record in caplog.records))
    assert application.run(after).point == Point(0, 0)


def test_the_constructor_connects(application: Application) -> None:
    before, after = pair("The constructor connects")

    def proxy(server_id: str, hostname: str, *, wait_for_broker: float = 0.0) -> QAMProxy:
        # a port at which nothing listens
        return QAMProxy(server_id, "127.0.0.1", 1, wait_for_broker=min(wait_for_broker, 0.01))

    with pytest.raises(qam.QAMConnectionException, match="nothing listens there"):
        application.run(before, QAMProxy=proxy)
    with pytest.raises(qam.QAMConnectionException, match="nothing listens there"):
        application.run(after, QAMProxy=proxy)  # waits, and then gives up
    application.old_server()
    assert application.run(after).proxy is not None


def test_a_server_that_never_ran(application: Application) -> None:
    before, after = pair("A server that never ran")
    with pytest.raises(qam.QAMServerNotFoundException):
        application.run(before)
    # when the client is there first, and then an old server comes
    printed: list[Any] = []
    client = threading.Thread(
        target=application.run, args=[after], kwargs={"print": printed.append}
    )
    client.start()
    application.old_server(add=lambda a, b: a + b)
    client.join(60)
    # then
    assert printed == [5]


def test_keyword_arguments(application: Application, capsys: pytest.CaptureFixture[str]) -> None:
    before, after = pair("Keyword arguments")
    application.old_server(add=lambda a, b: a + b)
    proxy = application.proxy("qamserver", "localhost")

    with pytest.raises(qam.QAMMethodNotFoundException, match="knows no keyword arguments"):
        application.run(before, proxy=proxy)
    application.run(after, proxy=proxy)

    assert capsys.readouterr().out.splitlines() == _PRINTS.findall(after) == ["5"]


# --- what stays, and the order of a move ---------------------------------------------------------


def whole_programs() -> tuple[str, str]:
    (stays,) = re.findall(r"^## What stays\n(.*?)^## ", PAGE, re.MULTILINE | re.DOTALL)
    server, client = re.findall(r"```python\n(.*?)```", stays, re.DOTALL)
    return server, client


@pytest.fixture
def modules(application: Application, monkeypatch: pytest.MonkeyPatch) -> Application:
    """What the programs import is that of the application."""

    def proxy(hostname: str, server_id: str) -> QAMProxy:
        return application.proxy(server_id, hostname)

    monkeypatch.setattr("qam.qam_server.QAMServer", application.server)
    monkeypatch.setattr("qam.qam_proxy.QAMProxy", proxy)
    return application


def test_the_program_that_stays_serves_an_old_client(modules: Application) -> None:
    server, _ = whole_programs()
    thread = threading.Thread(target=modules.run, args=[server])
    # given an old client whose request waits for a server
    client = modules.old_client()
    modules.server(hostname="localhost", server_id="qamserver")
    client.send("add", 2, 3)
    # when
    thread.start()
    # then
    assert client.receive()["result"] == 5
    modules.close()
    thread.join(60)


def test_the_program_that_stays_calls_an_old_server(
    modules: Application, capsys: pytest.CaptureFixture[str]
) -> None:
    _, client = whole_programs()
    modules.old_server(add=lambda a, b: a + b)

    modules.run(client)

    assert capsys.readouterr().out.splitlines() == ["6", "5"]


def test_requests_of_old_clients_wait_while_no_server_runs(application: Application) -> None:
    # given an old server that has ended without its queue
    old = application.old_server(add=lambda a, b: a + b)
    client = application.old_client()
    assert client.call("add", 1, 1)["result"] == 2
    old._stop.set()
    old._thread.join()
    # when
    client.send("add", 2, 3)
    server = application.server(hostname="localhost", server_id="qamserver")
    server.register_function(lambda a, b: a + b, "add")
    server.start()
    # then the new one answers it, and a new client shares it
    assert client.receive()["result"] == 5
    assert application.proxy("qamserver", "localhost").add(3, 4) == 7


def test_the_reply_queue_of_an_old_client_has_no_dot_and_that_of_a_new_one_goes(
    application: Application, rabbitmq_node: RabbitMQNode
) -> None:
    application.old_client()
    proxy = application.proxy("qamserver", "localhost", client_id=f"new-{application.server_id}")
    names = [name for name in rabbitmq_node.queues() if application.server_id in name]
    (old,) = (name for name in names if name.startswith("old-"))
    (new,) = (name for name in names if name.startswith("new-"))

    assert "." not in old
    assert "." in new
    proxy.close()
    assert new not in rabbitmq_node.queues()
