import re

from qam import QAMServer
from tests.cli.conftest import Run
from tests.conftest import Broker
from tests.support.service import Service


def test_a_server_is_pinged_once(run: Run, service: Service, server_id: str, url: str) -> None:
    exit_code, output, errors = run("ping", server_id, "--broker", url, "--timeout", "60")

    assert (exit_code, errors) == (0, "")
    assert re.fullmatch(rf"{server_id} answered in \d+\.\d ms\n", output)


def test_a_server_is_pinged_several_times(
    run: Run, service: Service, server_id: str, url: str
) -> None:
    exit_code, output, errors = run(
        *("ping", server_id, "-c", "3", "--interval", "0", "--broker", url, "--timeout", "60")
    )

    assert (exit_code, errors) == (0, "")
    assert output.count("answered in") == 3


def test_each_ping_without_an_answer_is_told(
    run: Run, broker: Broker, server_id: str, url: str
) -> None:
    with QAMServer(server_id=server_id, **broker.kwargs):  # which does not serve
        exit_code, output, errors = run(
            *("ping", server_id, "-c", "2", "--interval", "0.01", "--timeout", "0.05"),
            *("--broker", url),
        )

    assert (exit_code, output, errors.count("\n")) == (6, "", 2)
    assert f"`qam health {server_id}` tells whether a server is there" in errors


def test_a_server_that_never_was_is_told_once(run: Run, server_id: str, url: str) -> None:
    exit_code, output, errors = run("ping", server_id, "-c", "2", "--broker", url)

    assert (exit_code, output, errors.count("\n")) == (5, "", 1)
