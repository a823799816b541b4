"""Decodes the bodies of requests and replies: each is a dict in the serializer's content type."""

from typing import Any

from qam._broker.messages import Delivery
from qam._common.error_texts import describe
from qam._common.static_inspection import Name
from qam._serialization.refusals import NotTrustedError, Receiver, advice
from qam._serialization.serializers import Serializer
from qam.exceptions import QAMSerializationException


def decode(
    serializer: Serializer,
    delivery: Delivery,
    receiver: Receiver,
    strangers: list[Name] | None = None,
    *,
    envelope: bool = False,
) -> dict[str, Any]:
    """Return the decoded body of *delivery*.

    :param receiver: whose process this is.
    :param strangers: see :meth:`Serializer.decode`.
    :param envelope: build only plain values, see :meth:`Request.from_envelope`.
    :raises QAMSerializationException: the body is too large, has another content type, can't be
        decoded, or is no dict.
    """
    if delivery.too_large:
        raise QAMSerializationException(f"a message {delivery.too_large}")
    content_type = delivery.properties.get("content_type")
    if content_type != serializer.content_type:
        raise QAMSerializationException(
            f"a message has the content type {content_type!r}, but only {serializer.name} "
            f"({serializer.content_type}) is accepted; configure the same serializer on both sides"
        )
    try:
        if envelope:
            body = serializer.decode_envelope(delivery.body)
        else:
            body = serializer.decode(delivery.body, strangers)
    except NotTrustedError as error:
        raise QAMSerializationException(
            f"a message can't be decoded: {advice(error.names, receiver)}"
        ) from error
    except Exception as error:
        raise QAMSerializationException(
            f"a message can't be decoded as {serializer.name}: {describe(error)}"
        ) from error
    if not isinstance(body, dict):
        raise QAMSerializationException(
            f"a message is a {type(body).__name__}, not a dict; its sender is no qam peer"
        )
    return body
