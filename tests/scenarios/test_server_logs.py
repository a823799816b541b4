"""What a server tells its operator: what it serves, and what its methods raise."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from qam import QAMProxy, QAMServer
from tests.conftest import Broker


class ExpectedError(KeyError):
    """One that callers have to reckon with."""


def fail(kind: str) -> None:
    raise {"expected": ExpectedError, "unexpected": ValueError}[kind]("secret text")


@contextmanager
def failing(broker: Broker, server_id: str, **options: Any) -> Iterator[QAMProxy]:
    with QAMServer(server_id=server_id, **options, **broker.kwargs) as server:
        server.register_function(fail)
        server.start()
        with QAMProxy(server_id, timeout=60, **broker.kwargs) as proxy:
            yield proxy


def told(caplog: pytest.LogCaptureFixture) -> list[tuple[str, bool]]:
    """What was logged of methods that raised: at which level, and whether with a traceback."""
    return [
        (each.levelname, "in fail" in (each.exc_text or ""))
        for each in caplog.records
        if each.getMessage() == "fail() raised an exception"
    ]


@pytest.fixture(autouse=True)
def everything_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "qam")


def test_what_a_method_raises_is_an_error_with_its_traceback(
    broker: Broker, server_id: str, caplog: pytest.LogCaptureFixture
) -> None:
    with failing(broker, server_id) as proxy, pytest.raises(ValueError, match="secret"):
        proxy.fail("unexpected")
    assert told(caplog) == [("ERROR", True)]


@pytest.mark.parametrize("expected", [(KeyError,), [ExpectedError, OSError], KeyError])
def test_what_is_expected_is_none(
    broker: Broker, server_id: str, expected: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with failing(broker, server_id, expected_exceptions=expected) as proxy:
        with pytest.raises(Exception, match="secret"):
            proxy.fail("expected")
        with pytest.raises(ValueError, match="secret"):
            proxy.fail("unexpected")
    assert told(caplog) == [("DEBUG", True), ("ERROR", True)]


def test_a_service_whose_texts_are_secret_logs_none(
    broker: Broker, server_id: str, caplog: pytest.LogCaptureFixture
) -> None:
    with failing(broker, server_id, log_exceptions=False) as proxy:
        with pytest.raises(ValueError, match="secret"):
            proxy.fail("unexpected")
        assert told(caplog) == []
        assert "secret text" not in caplog.text


@pytest.mark.parametrize("wrong", ["KeyError", [KeyError()], [int], 1])
def test_only_classes_of_exceptions_can_be_expected(server_id: str, wrong: Any) -> None:
    with pytest.raises(TypeError, match="expected_exceptions"):
        QAMServer(f"memory://{server_id}", server_id=server_id, expected_exceptions=wrong)


def test_it_says_what_it_serves_and_where_and_when_it_ends(
    broker: Broker, server_id: str, caplog: pytest.LogCaptureFixture
) -> None:
    with QAMServer(server_id=server_id, **broker.kwargs) as server:
        server.register_function(fail)
        server.register_function(len)
        server.start()
        where = str(server.amqp_credentials)
    [serves, ends] = [each for each in caplog.messages if " serves " in each]
    assert serves == f"{server_id!r} serves at {where}: fail, len"
    assert ends == f"{server_id!r} serves no more"
