"""The mistakes that are made at a terminal: each is one line that says what to do."""

import subprocess
from typing import NamedTuple

import pytest

from tests.cli.conftest import EXAMPLES, Finished, Module, Run, command, environment
from tests.support.rabbitmq import RabbitMQNode, free_ports
from tests.support.service import serving


class Case(NamedTuple):
    """What is typed, and what comes of it."""

    typed: str  #: {id} stands for a server that serves, {url} for its broker
    exit_code: int
    told: str  #: what it says, and what to do


MISTAKES = {
    "no module": Case(
        "serve calk --broker {url}", 2, "there is no module 'calk'; run qam in the folder that has"
    ),
    "no attribute": Case(
        "serve shop:card --broker {url}", 2, "shop has no 'card'; did you mean 'cart'?"
    ),
    "a syntax error in it": Case("serve broken --broker {url}", 2, "broken.py, line 2; correct it"),
    "a class for an instance": Case(
        "serve shop:Cart --broker {url}", 2, "write 'shop:Cart()' to serve an instance of it"
    ),
    "bad URL": Case(
        "call {id} add 2 3 --broker http://localhost", 2, "use amqp://, amqps:// or memory://"
    ),
    "no broker": Case(
        "call {id} add 2 3 --broker amqp://127.0.0.1:{free_port}",
        3,
        "nothing listens there; is the broker running?; executed: no",
    ),
    "wrong password": Case(
        "call {id} add 2 3 --broker amqp://guest:secret@{place}",
        3,
        "access refused; are user name and password right?; executed: no",
    ),
    "unknown id": Case(
        "call {id}x add 2 3 --broker {url}", 5, "start one, or check the server_id; executed: no"
    ),
    "unknown method": Case(
        "call {id} subtract 2 3 --broker {url}", 4, "`qam methods {id}` lists what it has; executed"
    ),
    "too few arguments of the method": Case(
        "call {id} adder_function 2 --broker {url}", 1, "`qam methods {id}` shows its parameters"
    ),
    "too few arguments of the command": Case(
        "call {id}", 2, "the following arguments are required: METHOD; see qam call --help"
    ),
    "timeout": Case(
        "call {id} nap 3 --timeout 0.05 --broker {url}", 6, "and --timeout gives it more time; exec"
    ),
    "wrong option": Case(
        "call {id} add 2 3 --loud", 2, "unrecognized arguments: --loud; a text that begins with"
    ),
    "wrong JSON": Case(
        "call {id} add [1, --broker {url}", 2, "'[1,' begins like JSON, and is none: Expecting val"
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_told_in_one_line_that_says_what_to_do(
    run: Run, module: Module, rabbitmq_node: RabbitMQNode, server_id: str, mistake: str
) -> None:
    # given
    module("shop", "class Cart:\n    def put(self):\n        pass\ncart = Cart()\n")
    module("broken", "\ndef f(:\n")
    (free_port,) = free_ports(1)
    place = f"{rabbitmq_node.host}:{rabbitmq_node.port}"
    names = {"id": server_id, "url": rabbitmq_node.url, "place": place, "free_port": free_port}
    typed, exit_code, told = MISTAKES[mistake]

    # when
    with serving(server_id=server_id, hostname=rabbitmq_node.url):
        finished = run(*typed.format(**names).split(" "))

    # then
    assert (finished.exit_code, finished.output) == (exit_code, "")
    assert finished.errors.startswith(f"qam {typed.split(' ')[0]}: ")
    assert finished.errors.count("\n") == 1
    assert told.format(**names) in finished.errors
    assert "Traceback" not in finished.errors
    assert "secret" not in finished.errors


@pytest.mark.parametrize("typed", ["methods {id}", "call {id} echo x", "ping {id} -c 2"])
def test_a_closed_pipe_is_no_mistake(
    rabbitmq_node: RabbitMQNode, server_id: str, typed: str
) -> None:
    with (
        serving(server_id=server_id, hostname=rabbitmq_node.url),
        subprocess.Popen(
            command(*typed.format(id=server_id).split()),
            cwd=EXAMPLES,
            env=environment(rabbitmq_node.url),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        assert process.stdout is not None
        assert process.stderr is not None

        process.stdout.close()

        assert process.stderr.read() == ""
        assert process.wait(60) == 141


def test_nothing_is_told_when_nobody_reads_on(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise BrokenPipeError

    discarded: list[bool] = []
    monkeypatch.setattr("qam._cli.call.arguments_of", fail)
    monkeypatch.setattr("qam._cli.running.discard_output", lambda: discarded.append(True))

    assert run("call", "calc", "add") == (141, "", "")
    assert discarded == [True]


def test_an_internal_error_is_told_in_one_line_too(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("qam._cli.call.arguments_of", fail)

    assert run("call", "calc", "add") == Finished(
        1,
        "",
        "qam call: an internal error, RuntimeError: a bug; --traceback shows where, "
        "for a report to the authors\n",
    )
    assert "in fail" in run("call", "calc", "add", "--traceback").errors
