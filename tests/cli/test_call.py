import sys

import pytest

from tests.cli.conftest import Run
from tests.support.rabbitmq import RabbitMQNode, free_ports
from tests.support.service import Service, serving


def test_the_result_of_a_call_is_shown_as_json(
    run: Run, service: Service, server_id: str, url: str
) -> None:
    assert run("call", server_id, "add", "2", "3", "--broker", url) == (0, "5\n", "")
    assert run("call", server_id, "testclass.adder_function", "a=2", "b=3", "--broker", url) == (
        0,
        "5\n",
        "",
    )
    assert service.runs == [(2, 3)]


def test_arguments_are_json_or_texts(run: Run, service: Service, server_id: str, url: str) -> None:
    echo = ["call", server_id, "echo", "--broker", url]

    assert run(*echo, "[1, null]").output == "[1, null]\n"
    assert run(*echo, "two words").output == '"two words"\n'
    assert run(*echo, "value=é").output == '"é"\n'
    assert run(*echo, "(1, 2)", "--repr").output == "'(1, 2)'\n"


def test_the_broker_is_that_of_the_environment(
    run: Run,
    service: Service,
    server_id: str,
    url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("QAM_BROKER_URL", url)

    assert run("call", server_id, "add", "2", "3") == (0, "5\n", "")


def test_several_urls_are_the_nodes_of_a_cluster(
    run: Run, server_id: str, rabbitmq_node: RabbitMQNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    (port,) = free_ports(1)
    monkeypatch.setenv("QAM_BROKER_URL", f"amqp://127.0.0.1:{port} {rabbitmq_node.url}")
    with serving(server_id=server_id, hostname=rabbitmq_node.url):
        assert run("call", server_id, "add", "2", "3") == (0, "5\n", "")


@pytest.mark.parametrize(
    ("words", "exit_code", "told"),
    [
        (["fail", "x", "y"], 1, "fail() raised ValueError: ('x', 'y'); executed: yes"),
        (
            ["repeat", "x"],
            1,
            "raised TypeError: Service.repeat() missing 1 required positional argument: 'times'; "
            "`qam methods {id}` shows its parameters; executed: yes",
        ),
        (["subtract"], 4, "; `qam methods {id}` lists what it has; executed: no"),
        (["_add"], 2, "'_add' begins with an underscore, so it can't be called remotely; executed"),
        (["nap", "2", "--timeout", "0.05"], 6, "`qam health {id}` tells whether a server is there"),
        (["add", "1", "--serializer", "json"], 2, "--serializer has to be that of the server"),
        (["add", "a=1", "a=2"], 2, "the argument a= is given twice"),
    ],
)
def test_a_call_without_a_result_is_told_in_one_line(
    run: Run,
    service: Service,
    server_id: str,
    url: str,
    words: list[str],
    exit_code: int,
    told: str,
) -> None:
    found, output, errors = run("call", server_id, *words, "--broker", url)

    assert (found, output) == (exit_code, "")
    assert errors.startswith("qam call: ")
    assert errors.count("\n") == 1
    assert told.format(id=server_id) in errors


def test_a_traceback_is_shown_if_it_is_wanted(
    run: Run, service: Service, server_id: str, url: str
) -> None:
    exit_code, _, errors = run("call", server_id, "fail", "x", "--broker", url, "--traceback")

    assert exit_code == 1
    assert "Traceback (most recent call last):" in errors
    assert "in fail" in errors, "the server's own"
    assert errors.splitlines()[-1] == "qam call: fail() raised ValueError: x; executed: yes"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--broker", "http://localhost"], "--broker: the scheme http:// is not supported; use "),
        (["--broker", "memory://one memory://two"], "--broker: a memory:// broker can't be one "),
        (["--broker", ""], "--broker must be a host name or a URL"),
        (["--broker", "memory://one", "--serializer", "msgpack"], "msgpack"),
    ],
    ids=["scheme", "two", "empty", "missing"],
)
def test_an_option_that_can_not_be_followed_is_told(
    run: Run, monkeypatch: pytest.MonkeyPatch, arguments: list[str], told: str
) -> None:
    monkeypatch.setitem(sys.modules, "msgpack", None)  # it is not installed

    exit_code, output, errors = run("call", "calc", "add", *arguments)

    assert (exit_code, output, errors.count("\n")) == (2, "", 1)
    assert told in errors


def test_a_wrong_url_in_the_environment_is_told_by_the_name_of_the_variable(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QAM_BROKER_URL", "http://localhost")

    exit_code, _, errors = run("call", "calc", "add")

    assert exit_code == 2
    assert errors.startswith("qam call: QAM_BROKER_URL: the scheme http:// is not supported")
