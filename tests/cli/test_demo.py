import subprocess
import sys

import pytest

from qam.__main__ import main
from qam._cli import demo
from tests.cli.conftest import Run
from tests.support.rabbitmq import RabbitMQNode, free_ports


def shown(output: str) -> dict[str, list[str]]:
    """What came of each line of code."""
    paragraphs = [paragraph.splitlines() for paragraph in output.split("\n\n")]
    return {
        lines[1].removeprefix(">>> "): lines[2:]
        for lines in paragraphs
        if len(lines) > 1 and lines[1].startswith(">>> ")
    }


def assert_everything_is_shown(output: str) -> None:
    outcomes = shown(output)
    assert outcomes["proxy.add(2, 3)"] == ["5"]
    assert outcomes["proxy.counter.add(5)"] == ["5"]
    assert outcomes["uid = proxy.callback(success, error).slow_add(2, 4)"] == [
        "state 0: it waits for its result",
        "state 1: success(6) is called",
        "state 2: it is finished",
    ]
    (timeout,) = outcomes["proxy.set_timeout(0.2).slow_add(2, 3)"]
    assert timeout.startswith("QAMTimeoutException: slow_add() timed out after 0.2 s")
    assert outcomes["proxy.divide(1, 0)"] == [
        "ZeroDivisionError: division by zero",
        "the server's traceback ends: ZeroDivisionError: division by zero",
    ]
    (unknown_method,) = outcomes["proxy.subtract(3, 2)"]
    assert unknown_method.startswith("QAMMethodNotFoundException: ")
    assert unknown_method.endswith("(executed: no)")


def test_demo_shows_each_kind_of_call_without_a_broker(run: Run) -> None:
    exit_code, output, errors = run("demo")

    assert (exit_code, errors) == (0, "")
    assert_everything_is_shown(output)


def entities(node: RabbitMQNode) -> str:
    """The names of all queues and exchanges."""
    return node.ctl("list_queues", "name") + node.ctl("list_exchanges", "name")


def test_demo_shows_the_same_on_a_broker_and_leaves_nothing_there(
    run: Run, rabbitmq_node: RabbitMQNode
) -> None:
    exit_code, output, errors = run("demo", "--broker", rabbitmq_node.url)

    assert (exit_code, errors) == (0, "")
    assert_everything_is_shown(output)
    assert "qam-demo-" in output
    assert "qam-demo-" not in entities(rabbitmq_node)


def test_a_demo_that_is_interrupted_leaves_nothing_either(
    rabbitmq_node: RabbitMQNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    seen: list[str] = []

    def interrupt(stage: demo.Stage) -> list[str]:
        assert stage.proxy.add(1, 2) == 3
        seen.append(entities(rabbitmq_node))
        raise KeyboardInterrupt

    demonstration = demo.Demonstration("Ctrl-C.", "proxy.add(1, 2)", interrupt)
    monkeypatch.setattr(demo, "DEMONSTRATIONS", (demonstration,))

    # when
    exit_code = main(["demo", "--broker", rabbitmq_node.url])

    # then
    assert exit_code == 130
    assert "qam-demo-" in seen[0]
    assert "qam-demo-" not in entities(rabbitmq_node)


def test_two_demos_at_one_broker_do_not_meet(run: Run) -> None:
    first, second = (run("demo", "--broker", "memory://two-demos") for _ in range(2))

    # then: the counter of the second one starts anew
    assert shown(first[1])["proxy.counter.add(5)"] == shown(second[1])["proxy.counter.add(5)"]


def test_demo_does_not_show_the_password_of_the_broker(
    run: Run, rabbitmq_node: RabbitMQNode
) -> None:
    # given
    place = f"{rabbitmq_node.host}:{rabbitmq_node.port}"

    # when
    outputs = run("demo", "--broker", f"amqp://guest:secret@{place}")

    # then
    assert outputs[0] == 3
    assert "access refused" in outputs[2]
    assert "secret" not in "".join(outputs[1:])


def test_an_unreachable_broker_is_told_in_one_line(run: Run) -> None:
    # given
    (port,) = free_ports(1)

    # when
    exit_code, output, errors = run("demo", "--broker", f"amqp://127.0.0.1:{port}")

    # then
    assert (exit_code, output) == (3, "")
    assert errors.count("\n") == 1
    assert f"127.0.0.1:{port}" in errors
    assert "is the broker running?" in errors


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://localhost", "the scheme http:// is not supported"),
        ("amqp://localhost:five", "no valid port"),
        ("", "must be a host name or a URL"),
    ],
)
def test_a_wrong_url_is_told_in_one_line(run: Run, url: str, reason: str) -> None:
    exit_code, output, errors = run("demo", "--broker", url)

    assert (exit_code, output) == (2, "")
    assert errors.count("\n") == 1
    assert reason in errors


def test_demo_runs_as_a_module() -> None:
    finished = subprocess.run(
        [sys.executable, "-W", "error", "-m", "qam", "demo"],
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert (finished.returncode, finished.stderr) == (0, "")
    assert_everything_is_shown(finished.stdout)
    assert finished.stdout.isascii()


def test_demo_ends_without_a_word_when_nobody_reads_on() -> None:
    # given
    demo = subprocess.Popen(
        [sys.executable, "-u", "-m", "qam", "demo"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with demo:
        assert demo.stdout is not None
        assert demo.stderr is not None

        # when
        demo.stdout.close()

        # then
        assert demo.stderr.read() == ""
        assert demo.wait(60) == 141
