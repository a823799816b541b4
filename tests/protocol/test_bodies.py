from typing import Any

import pytest

from qam._broker.messages import Delivery, TooLarge
from qam._protocol.bodies import decode
from qam._serialization.refusals import Receiver
from qam._serialization.serializers import get_serializer
from qam.exceptions import QAMSerializationException

SERVER = Receiver("server", "shop")
JSON, PICKLE = get_serializer("json"), get_serializer("pickle")


def delivery(body: bytes, content_type: str | None = "application/json") -> Delivery:
    return Delivery(body, 1, properties={"content_type": content_type})


def test_a_body_is_a_dict() -> None:
    assert decode(JSON, delivery(b'{"id": 1}'), SERVER) == {"id": 1}
    encoded = PICKLE.encode({"id": 1})
    assert decode(PICKLE, delivery(encoded, PICKLE.content_type), SERVER, envelope=True) == {
        "id": 1
    }


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (delivery(b"[]"), "is a list, not a dict"),
        (delivery(b"{"), "can't be decoded as json"),
        (delivery(b"{}", "text/plain"), "only json .* is accepted"),
        (delivery(b"{}", None), "has the content type None"),
        (Delivery(b"", 1, too_large=TooLarge(20, 10)), "has 20 bytes"),
    ],
)
def test_anything_else_is_none(wrong: Any, why: str) -> None:
    with pytest.raises(QAMSerializationException, match=why):
        decode(JSON, wrong, SERVER)
