from typing import Any

import pytest

from qam._client.pending_call import PendingCall
from qam._client.request_maker import RequestMaker
from qam._common.deadline import Deadline
from qam._protocol.entities import request_binding
from qam._protocol.properties import ONE_WAY, RESENT
from qam._serialization.serializers import get_serializer
from qam.exceptions import QAMSerializationException

JSON = get_serializer("json")
OWN_KEY = "label.own_client_routing_key"


def maker(max_message_bytes: int = 1000, persistent: bool = True) -> RequestMaker:
    return RequestMaker("server", "label.own", JSON, max_message_bytes, persistent)


def decoded(body: bytes) -> Any:
    return JSON.decode(body)


@pytest.mark.parametrize("key", [OWN_KEY, "label_client_routing_key"])
def test_a_request_says_what_is_called_and_where_its_reply_goes(key: str) -> None:
    assert decoded(maker().encode(7, "add", [1, 2], {}, key)) == {
        "id": 7,
        "method_name": "add",
        "routing_key": OWN_KEY,
        "params": [1, 2],
    }


def test_another_way_back_is_left_as_it_is() -> None:
    assert decoded(maker().encode(7, "add", [], {}, "elsewhere"))["routing_key"] == "elsewhere"


def test_what_can_not_be_encoded_is_told_by_the_name_of_its_method() -> None:
    with pytest.raises(
        QAMSerializationException, match=r"arguments of add\(\).* as json"
    ) as raised:
        maker().encode(7, "add", [object()], {}, OWN_KEY)

    assert raised.value.executed == "no"


def test_what_is_too_large_is_told_with_its_size() -> None:
    body = maker().encode(7, "add", ["x" * 500], {}, OWN_KEY)
    maker(max_message_bytes=len(body)).encode(7, "add", ["x" * 500], {}, OWN_KEY)

    with pytest.raises(QAMSerializationException, match=rf"add\(\) has {len(body)} bytes, more"):
        maker(max_message_bytes=len(body) - 1).encode(7, "add", ["x" * 500], {}, OWN_KEY)


def test_a_request_is_published_under_the_id_of_its_call() -> None:
    call = PendingCall(1, 7, "add", b"body", times_written=1)

    message = maker().request(call, now=5.0)

    assert message.route == request_binding("server").route
    assert (message.body, message.context) == (b"body", call)
    assert message.mandatory
    assert message.confirm
    assert message.properties["correlation_id"] == "label.own:7"
    assert message.properties["reply_to"] == OWN_KEY
    assert message.properties["delivery_mode"] == 2
    assert "expiration" not in message.properties
    assert "headers" not in message.properties
    assert call.written_at == 5.0


def test_the_time_that_is_left_goes_with_it() -> None:
    call = PendingCall(1, 7, "add", b"body", Deadline(60.0), times_written=1)

    expiration = maker().request(call, now=call.deadline.at - 12.5).properties["expiration"]

    assert expiration == "12500"


def test_a_copy_is_marked_with_its_age_and_no_other_with_it() -> None:
    requests = maker()
    call = PendingCall(1, 7, "add", b"body", times_written=1)
    requests.request(call, now=5.0)
    call.times_written = 2

    assert requests.request(call, now=5.25).properties["headers"] == {RESENT: 250}
    other = PendingCall(2, 8, "add", b"body", times_written=1)
    assert "headers" not in requests.request(other, now=6.0).properties


def test_what_nobody_keeps_is_not_confirmed() -> None:
    call = PendingCall(1, 7, "add", b"body", times_written=1)

    message = maker(persistent=False).request(call, now=5.0)

    assert not message.confirm
    assert message.properties["delivery_mode"] == 1


@pytest.mark.parametrize(
    ("correlation_id", "call_id"), [("label.own:7", 7), ("label.other:7", None), (None, None)]
)
def test_a_return_belongs_to_a_call_of_this_client_or_to_none(
    correlation_id: str | None, call_id: int | None
) -> None:
    assert maker().call_id_of(correlation_id) == call_id


def test_metadata_travels_with_each_copy_of_a_request() -> None:
    call = PendingCall(1, 7, "add", b"body", times_written=1, metadata={"trace": "a1"})
    assert maker().request(call, now=5.0).properties["headers"] == {"trace": "a1"}

    call.times_written = 2
    again = maker().request(call, now=6.0)
    assert again.properties["headers"] == {"trace": "a1", RESENT: 1000}


def test_a_one_way_request_says_so_and_has_no_expiration() -> None:
    deadline = Deadline(60.0)
    call = PendingCall(1, 7, "note", b"body", deadline, times_written=1, one_way=True)

    message = maker().request(call, now=5.0)

    assert message.properties["headers"] == {ONE_WAY: True}
    assert "expiration" not in message.properties


def test_a_request_says_who_sends_it_only_if_its_proxy_does() -> None:
    call = PendingCall(1, 7, "add", b"body", times_written=1)
    says = RequestMaker("server", "label.own", JSON, 1000, True, user="ann")

    for _ in range(2):  # the second is a copy
        assert says.request(call, now=5.0).properties["user_id"] == "ann"
        assert "user_id" not in maker().request(call, now=5.0).properties
