from typing import Any

import pytest

from qam._protocol.requests import Request, apply_message
from qam.exceptions import QAMSerializationException

BODY: dict[str, Any] = {"id": 1, "method_name": "add", "routing_key": "key", "params": [1, 2]}


def test_a_request_has_an_id_a_name_a_key_and_params() -> None:
    assert Request.from_body(BODY) == Request(1, "add", "key", [1, 2])
    assert Request.from_body({**BODY, "params": (1,)}).params == (1,)


@pytest.mark.parametrize("id", [None, "text", "x" * 255, 2**64 - 1, -(2**64) + 1], ids=repr)
def test_an_id_is_something_small_that_can_be_sent_back(id: Any) -> None:
    assert Request.from_body({**BODY, "id": id}).id == id


@pytest.mark.parametrize(
    "wrong",
    [
        *({"id": 2**64}, {"id": "x" * 256}, {"id": [1]}, {"id": 1.5}),
        *({"method_name": None}, {"method_name": b"add"}),
        *({"routing_key": None}, {"routing_key": "x" * 256}),
        *({"params": None}, {"params": "no list"}, {"params": {}}),
    ],
    ids=repr,
)
def test_what_is_of_the_wrong_type_is_no_request(wrong: dict[str, Any]) -> None:
    with pytest.raises(QAMSerializationException, match="a request must have a method_name"):
        Request.from_body({**BODY, **wrong})


def test_keyword_arguments_travel_as_a_call_of_another_name() -> None:
    assert apply_message("add", [1], {}) == ("add", [1])
    assert apply_message("add", [1], {"b": 2}) == ("system.apply", ("add", (1,), {"b": 2}))


@pytest.mark.parametrize(
    ("name", "params", "is_for_system"),
    [
        ("add", [1], False),
        ("systems.add", [], False),
        ("system.apply", ["add", [], {}], False),
        ("system.ping", [], True),
        ("system.apply", ["system.ping", [], {}], True),
        ("system.multicall", [[], []], True),
    ],
)
def test_what_a_server_answers_by_itself_is_told_from_what_was_registered(
    name: str, params: list[Any], is_for_system: bool
) -> None:
    assert Request(1, name, "key", params).is_for_system is is_for_system


def test_of_an_envelope_only_the_name_that_is_called_is_kept() -> None:
    assert Request.from_envelope(BODY).params == ()
    applied = {**BODY, "method_name": "system.apply", "params": ["add", [1], {}]}
    assert Request.from_envelope(applied).params == ["add"]
    assert Request.from_envelope({**applied, "params": "no list"}).params == ()
    with pytest.raises(QAMSerializationException):
        Request.from_envelope({**BODY, "routing_key": None})
