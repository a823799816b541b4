import json
from typing import Any

import pytest

from qam import QAMServer
from qam.exceptions import QAMMethodNotFoundException
from tests.cli.conftest import Run
from tests.conftest import Broker
from tests.support.peer_0_2 import Server02
from tests.support.rabbitmq import RabbitMQNode
from tests.support.service import Service


def test_the_methods_are_shown_with_their_parameters(
    run: Run, broker: Broker, server_id: str, url: str
) -> None:
    # given
    with QAMServer(server_id=server_id, **broker.kwargs) as server:

        @server.register_function(idempotent=True)
        def add(a: int, b: int = 0) -> int:
            """Return the sum.

            And nothing else.
            """
            return a + b

        @server.register_function
        def note(text: str) -> None:
            pass

        server.start()

        # when
        finished = run("methods", server_id, "--broker", url)

    # then
    lines = [
        "add(a: int, b: int = 0) -> int  (idempotent)",
        "    Return the sum.",
        "note(text: str) -> None",
    ]
    assert finished == (0, "\n".join(lines) + "\n", "")


def test_all_that_a_server_tells_is_shown_as_json(
    run: Run, service: Service, server_id: str, url: str
) -> None:
    exit_code, output, errors = run("methods", server_id, "--json", "--broker", url)

    assert (exit_code, errors) == (0, "")
    told = json.loads(output)
    assert told["server_id"] == server_id
    assert [each["name"] for each in told["methods"]][:2] == ["add", "adder_function"]
    assert told["methods"][0] == {
        "name": "add",
        "signature": "(a: Any, b: Any = 0) -> Any",
        "doc": "",
        "idempotent": False,
    }


def test_a_stub_is_written_of_what_a_server_tells(
    run: Run, service: Service, server_id: str, url: str
) -> None:
    exit_code, output, errors = run("methods", server_id, "--stub", "--broker", url)

    assert (exit_code, errors) == (0, "")
    assert "    def repeat(self, text: str, times: int) -> str: ...\n" in output


def test_a_server_without_methods_says_so(
    run: Run, broker: Broker, server_id: str, url: str
) -> None:
    with QAMServer(server_id=server_id, **broker.kwargs) as server:
        server.start()

        assert run("methods", server_id, "--broker", url) == (0, "no methods are registered\n", "")


def test_a_server_that_keeps_its_methods_to_itself_is_told(
    run: Run, broker: Broker, server_id: str, url: str
) -> None:
    with QAMServer(server_id=server_id, introspection=False, **broker.kwargs) as server:
        server.start()

        exit_code, output, errors = run("methods", server_id, "--broker", url)

    assert (exit_code, output, errors.count("\n")) == (4, "", 1)
    assert "tells nothing of its methods: it is one of 0.2.x, or was made with intro" in errors


def test_a_server_of_0_2_is_told_in_the_same_way(
    run: Run, server_id: str, rabbitmq_node: RabbitMQNode
) -> None:
    server = Server02(rabbitmq_node.url, server_id, "json", {})
    try:
        exit_code, _, errors = run(
            *("methods", server_id, "--serializer", "json", "--broker", rabbitmq_node.url)
        )
    finally:
        server.close()

    assert exit_code == 4
    assert "it is one of 0.2.x" in errors


@pytest.mark.parametrize(
    "answer",
    [None, [], {}, {"methods": 5}, {"server_id": "x", "version": 1, "methods": []}]
    + [{"server_id": "x", "version": "1", "methods": [each]} for each in (5, {}, {"name": "a"})],
    ids=["none", "list", "empty", "number", "version", "method", "nothing", "part"],
)
def test_an_answer_of_another_form_is_a_mistake(
    run: Run, monkeypatch: pytest.MonkeyPatch, server_id: str, answer: Any
) -> None:
    # given
    url = f"memory://{server_id}"
    monkeypatch.setattr("qam._server.introspection.Introspection.describe", lambda _: answer)
    with QAMServer(url, server_id=server_id) as server:
        server.start()

        # when
        exit_code, output, errors = run("methods", server_id, "--broker", url)

    # then
    assert (exit_code, output, errors.count("\n")) == (1, "", 1)
    assert "is its version of qam a later one?" in errors


def test_a_server_whose_answer_fails_is_a_mistake(
    run: Run, monkeypatch: pytest.MonkeyPatch, server_id: str
) -> None:
    def fail(_: object) -> None:
        raise ValueError("no")

    url = f"memory://{server_id}"
    monkeypatch.setattr("qam._server.introspection.Introspection.describe", fail)
    with QAMServer(url, server_id=server_id) as server:
        server.start()
        exit_code, _, errors = run("methods", server_id, "--broker", url)

    assert exit_code == 1
    assert errors == "qam methods: system.describe() raised ValueError: no; executed: yes\n"


def test_a_server_that_is_not_there_is_told(run: Run, server_id: str, url: str) -> None:
    exit_code, output, errors = run("methods", server_id, "--stub", "--broker", url)

    assert (exit_code, output, errors.count("\n")) == (5, "", 1)
    assert QAMMethodNotFoundException.__name__ not in errors
