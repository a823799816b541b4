import re

import pytest

from qam import QAMProxy, QAMServer, send
from qam._broker.messages import QueueState
from tests.cli.conftest import Run
from tests.conftest import Broker
from tests.support.service import Service


def test_a_server_that_answers_is_healthy(
    run: Run, service: Service, server_id: str, url: str
) -> None:
    exit_code, output, errors = run(
        *("health", server_id, "--max-waiting", "0", "--timeout", "60", "--broker", url)
    )

    assert (exit_code, errors) == (0, "")
    shape = rf"{server_id} answers in \d+\.\d ms; 0 requests wait for 1 server\n"
    assert re.fullmatch(shape, output)


def test_a_server_that_is_not_running_is_told(
    run: Run, broker: Broker, server_id: str, url: str
) -> None:
    with QAMServer(server_id=server_id, **broker.kwargs):
        exit_code, output, errors = run("health", server_id, "--timeout", "0.05", "--broker", url)

    assert (exit_code, output) == (5, "")
    assert errors == (
        f"qam health: no server of '{server_id}' is running, and 0 requests in its queue; "
        "start one, as by qam serve\n"
    )


def test_a_server_that_never_was_is_told(run: Run, server_id: str, url: str) -> None:
    exit_code, output, errors = run("health", server_id, "--broker", url)

    assert (exit_code, output, errors.count("\n")) == (5, "", 1)
    assert "no server has ever served it there; start one, or check the ID" in errors


def test_a_busy_server_is_told(run: Run, broker: Broker, server_id: str, url: str) -> None:
    # given: its one worker is busy
    service = Service()
    with (
        QAMServer(server_id=server_id, max_workers=1, prefetch=1, **broker.kwargs) as server,
        QAMProxy(server_id, **broker.kwargs) as proxy,
    ):
        server.register_function(service.hold)
        server.start()
        proxy.callback(None).hold()
        assert service.holding.wait(60)
        try:
            # when
            exit_code, output, errors = run(
                *("health", server_id, "--timeout", "0.05", "--broker", url)
            )
        finally:
            service.go_on.set()

    # then
    assert (exit_code, output, errors.count("\n")) == (6, "", 1)
    assert "no answer within 0.05 s" in errors
    assert "start another server, or wait longer by --timeout" in errors


@pytest.mark.parametrize(("most", "exit_code"), [(1, 1), (2, 0)])
def test_too_many_waiting_requests_are_told(
    run: Run,
    service: Service,
    server_id: str,
    url: str,
    monkeypatch: pytest.MonkeyPatch,
    most: int,
    exit_code: int,
) -> None:
    # given: so many are counted before the server answers
    monkeypatch.setattr("qam._cli.health._inspect", lambda _: QueueState(2, 1))

    # when
    finished = run(
        *("health", server_id, "--max-waiting", str(most), "--timeout", "60", "--broker", url)
    )

    # then
    assert finished.exit_code == exit_code
    assert "2 requests wait for 1 server" in finished.output
    assert ("2 requests wait, more than 1; start another" in finished.errors) == (exit_code == 1)


def test_waiting_requests_are_counted_without_the_ping(
    run: Run, broker: Broker, server_id: str, url: str
) -> None:
    with (
        QAMServer(server_id=server_id, **broker.kwargs),
        QAMProxy(server_id, timeout=60, **broker.kwargs) as proxy,
    ):
        send(proxy.add, 2, 3)
        send(proxy.add, 2, 3)

        errors = run("health", server_id, "--timeout", "0.05", "--broker", url).errors

    assert "2 requests in its queue" in errors
