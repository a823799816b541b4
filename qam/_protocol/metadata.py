"""The metadata of a call: texts by name, which travel as AMQP headers.  No I/O here."""

from collections.abc import Mapping
from typing import Any

from qam._common.checks import is_short_text

#: Octets of all names and texts together.
MAX_METADATA = 8192
#: Names that begin so are those of protocols.
_RESERVED = "x-"


def check_metadata(value: object) -> dict[str, str]:
    """Return a copy of *value*.

    :raises TypeError: it is no mapping from texts to texts.
    :raises ValueError: a name is reserved or too long, or all of it has too many octets.
    """
    if not isinstance(value, Mapping):
        raise TypeError(f"metadata must be a mapping, or return one, not {type(value).__name__}")
    metadata = dict(value)
    for name, text in metadata.items():
        _check_entry(name, text)
    if (size := _size(metadata)) > MAX_METADATA:
        raise ValueError(f"metadata has {size} bytes, more than {MAX_METADATA}")
    return metadata


def _check_entry(name: object, text: object) -> None:
    if not isinstance(name, str) or not isinstance(text, str):
        raise TypeError(f"metadata must map str to str, not {name!r:.100} to {text!r:.100}")
    if not name or not is_short_text(name) or name.lower().startswith(_RESERVED):
        raise ValueError(
            f"metadata: a name has 1 to 255 bytes and does not begin with {_RESERVED!r}, "
            f"unlike {name!r:.100}"
        )
    if not _is_encodable(text):
        raise ValueError(f"metadata: the text of {name!r} can't be encoded as UTF-8")


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _size(metadata: Mapping[str, str]) -> int:
    return sum(len(name.encode()) + len(text.encode()) for name, text in metadata.items())


def metadata_of(headers: Mapping[str, Any]) -> dict[str, str]:
    """Return the metadata in received *headers*; empty if a caller could not have sent it."""
    found = {
        name: text
        for name, text in headers.items()
        if isinstance(text, str) and not name.lower().startswith(_RESERVED)
    }
    try:
        return check_metadata(found)
    except ValueError:
        return {}
