"""What runs again waits until the broker has the ack of what it replaces."""

import time
from typing import Any, ClassVar

import pytest

from qam import QAMServer
from qam._broker.fates import Fate
from qam._broker.messages import Delivery, Publish
from qam._protocol.entities import request_binding
from qam._protocol.properties import RESENT, RUNS
from qam._server.call import Call
from qam._server.held_back import HeldBack
from qam._server.publisher_thread import ReplyPublisherThread
from tests.conftest import Broker
from tests.support.strangers import CONTENT_TYPES, Stranger, encode
from tests.support.waiting import until


def call(runs: int = 1, lost: bool = False) -> Call:
    properties: dict[str, Any] = {"headers": {RUNS: runs}} if runs > 1 else {}
    made = Call(Delivery(b"", 1, properties=properties), connection_number=1)
    made.lost = lost
    return made


def with_lost(*lost: Call) -> HeldBack:
    held_back = HeldBack()
    for each in lost:
        held_back.begin(each)
    return held_back


def test_nothing_waits_where_nothing_is_lost() -> None:
    held_back = with_lost()
    held_back.end([call(), call(runs=2)])

    assert not held_back.hold(call(runs=2))
    assert not held_back.ready


def test_what_runs_for_the_first_time_never_waits() -> None:
    assert not with_lost(call(lost=True)).hold(call())


def test_what_runs_again_waits_until_all_that_was_lost_before_it_is_settled() -> None:
    first, second, later = call(lost=True), call(lost=True), call(lost=True)
    again, again_later = call(runs=2), call(runs=3)
    held_back = with_lost(first, second)
    # given
    assert held_back.hold(again)
    held_back.begin(later)
    assert held_back.hold(again_later)
    # when, then
    held_back.end([second])
    assert not held_back.ready
    held_back.end([first])
    assert held_back.ready
    assert held_back.take_ready() == [again]
    assert not held_back.ready
    held_back.end([later])
    assert held_back.ready
    assert held_back.take_ready() == [again_later]


def test_it_waits_too_where_the_broker_may_not_have_the_ack_yet() -> None:
    lost, again = call(lost=True), call(runs=2)
    held_back = with_lost(lost)
    held_back.end([lost])

    assert held_back.hold(again)
    assert held_back.ready
    assert held_back.take_ready() == [again]
    assert not held_back.hold(call(runs=2))


@pytest.mark.parametrize("started", [True, False])
def test_a_lost_connection_brings_all_again_that_waited(started: bool) -> None:
    lost = call(lost=True)
    held_back = with_lost(lost)
    assert held_back.hold(call(runs=2))

    held_back.lost_connection([] if started else [lost])

    assert not held_back.ready
    assert held_back.hold(call(runs=2)) == started


def test_what_waits_can_be_given_back() -> None:
    again = call(runs=2)
    held_back = with_lost(call(lost=True))
    assert held_back.hold(again)

    assert held_back.take_all() == [again]
    assert held_back.take_all() == []


class Witness:
    """Looks, when it is built, at what the server holds."""

    server: QAMServer
    #: How many deliveries were not acknowledged at that moment.
    seen: ClassVar[list[int]] = []

    def __getstate__(self) -> Any:
        return {"what": "a state"}

    def __setstate__(self, state: Any) -> None:
        self.seen.append(len(self.server._consumer._intake._deliveries))


def test_nothing_of_a_request_is_built_before_the_one_that_it_replaces_is_acknowledged(
    broker: Broker,
    server_id: str,
    stranger: Stranger,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # given a server that learns late of the confirm of what it publishes
    learn = ReplyPublisherThread._on_fate

    def learn_late(
        self: ReplyPublisherThread, fate: Fate, messages: list[Publish], *more: Any
    ) -> Any:
        if fate is Fate.CONFIRMED:
            time.sleep(0.5)  # ample for what must not happen meanwhile
        return learn(self, fate, messages, *more)

    monkeypatch.setattr(ReplyPublisherThread, "_on_fate", learn_late)
    Witness.seen.clear()
    with QAMServer(server_id=server_id, trusted=[Witness], **broker.kwargs) as server:
        Witness.server = server
        server.register_function(lambda witness: None, "see", idempotent=True)
        server.start()
        # when a request comes for which nobody can vouch
        request = {"id": 1, "method_name": "see", "routing_key": "nobody", "params": (Witness(),)}
        content = {"content_type": CONTENT_TYPES["pickle"], "delivery_mode": 2}
        properties = content | {"correlation_id": "client:1", "headers": {RESENT: 0}}
        stranger.send(request_binding(server_id).route, encode(request, "pickle"), properties)
        # then it is built once, alone
        until(lambda: Witness.seen)
    assert Witness.seen == [1]
