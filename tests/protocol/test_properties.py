import pytest

from qam._protocol.properties import expiration, properties
from qam._serialization.serializers import get_serializer


def test_a_message_says_how_it_is_encoded_and_whether_it_is_kept() -> None:
    serializer = get_serializer("json")
    kept = properties(serializer, reply_to="key", headers=None)

    assert kept == {
        "content_type": "application/json",
        "content_encoding": "utf-8",
        "delivery_mode": 2,
        "reply_to": "key",
    }
    assert properties(serializer, persistent=False)["delivery_mode"] == 1


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, None), (0.0, "1"), (0.0004, "1"), (1.5, "1500"), (4294967.295, "4294967295")],
)
def test_a_time_to_live_is_text_in_whole_milliseconds(
    seconds: float | None, text: str | None
) -> None:
    assert expiration(seconds) == text


def test_what_the_broker_would_close_the_channel_for_has_no_end() -> None:
    assert expiration(4294967.296) is None
