"""Methods that call, and what they call needs a worker of the same server."""

from collections.abc import Iterator
from typing import Any

import pytest

from qam import QAMProxy, QAMServer, RemoteException
from tests.conftest import Broker
from tests.support.waiting import finish

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def proxy(broker: Broker, server_id: str) -> Iterator[QAMProxy]:
    with QAMProxy(server_id, timeout=60, **broker.kwargs) as proxy:
        yield proxy


@pytest.fixture
def server(broker: Broker, server_id: str, proxy: QAMProxy) -> Iterator[QAMServer]:
    """Of one worker, with a method that calls itself so many times."""

    def dig(depth: int, patience: float) -> int:
        return proxy.set_timeout(patience).dig(depth - 1, patience) + 1 if depth else 0

    with QAMServer(server_id=server_id, max_workers=1, max_nested=5, **broker.kwargs) as server:
        server.register_function(dig)
        server.start()
        yield server


def test_a_method_may_call_its_own_server_although_that_has_one_worker(
    proxy: QAMProxy, server: QAMServer
) -> None:
    assert proxy.dig(5, 60.0) == 5
    assert proxy.dig(5, 60.0) == 5


def test_deeper_calls_than_allowed_end_by_their_timeout_and_the_server_goes_on(
    proxy: QAMProxy, server: QAMServer
) -> None:
    with pytest.raises(RemoteException, match="timed out"):
        proxy.dig(6, 1.0)
    assert proxy.dig(1, 60.0) == 1


def test_two_servers_may_call_each_other(broker: Broker, server_id: str, proxy: QAMProxy) -> None:
    other_id = f"{server_id}-other"
    options: dict[str, Any] = {"max_workers": 1, **broker.kwargs}
    with (
        QAMProxy(other_id, timeout=60, **broker.kwargs) as to_other,
        QAMServer(server_id=server_id, **options) as server,
        QAMServer(server_id=other_id, **options) as other,
    ):
        server.register_function(lambda n: to_other.pong(n - 1) + 1 if n else 0, "ping")
        other.register_function(lambda n: proxy.ping(n - 1) + 1 if n else 0, "pong")
        server.start()
        other.start()
        # when many begin at once, so that no worker is left
        results: list[Any] = []
        for _ in range(10):
            proxy.callback(results.append, results.append).ping(6)
        assert proxy.ping(6) == 6
        finish(proxy)
        assert results == [6] * 10
