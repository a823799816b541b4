"""Several calls in one request, by value; tests/scenarios/test_multicalls.py makes them."""

from typing import Any

import pytest

from qam._protocol.multicalls import calls_of, multicall_params, pack_replies, result_in
from qam._protocol.replies import exception_reply, result_reply
from qam._protocol.requests import APPLY, MULTICALL, Request
from qam._serialization.refusals import Receiver
from qam._serialization.serializers import get_serializer
from qam.exceptions import QAMSerializationException

CLIENT = Receiver("client", "label")


def request(*params: Any) -> Request:
    return Request(7, MULTICALL, "key", params)


def test_what_a_client_sends_is_what_a_server_reads() -> None:
    params = multicall_params([("add", (1, 2), {}), ("shop.buy", (), {"what": "tea"})])

    add, buy = calls_of(request(*params))

    assert (add.method_name, add.params, add.routing_key) == ("add", (1, 2), "key")
    assert (buy.method_name, buy.called_name) == (APPLY, "shop.buy")
    assert buy.params == ("shop.buy", (), {"what": "tea"})


@pytest.mark.parametrize("name", ["pickle", "json", "msgpack"])
def test_each_reply_is_read_for_itself(name: str) -> None:
    serializer = get_serializer(name)
    replies = [result_reply(None, [1]), exception_reply(None, KeyError("k"), serializer)]

    packed = pack_replies([serializer.encode(each) for each in replies], serializer)
    good, bad = serializer.decode(serializer.encode(packed))

    assert result_in(good, serializer, CLIENT) == [1]
    with pytest.raises(KeyError, match="k"):
        result_in(bad, serializer, CLIENT)


@pytest.mark.parametrize("packed", [5, None, ["a"], b"\x80no pickle"], ids=str)
def test_what_is_no_reply_is_told(packed: Any) -> None:
    with pytest.raises(QAMSerializationException, match="can't be decoded"):
        result_in(packed, get_serializer("pickle"), CLIENT)
