"""The texts that travel with a call; tests/scenarios/test_call_options.py sends them."""

from types import MappingProxyType
from typing import Any

import pytest

from qam._protocol.metadata import MAX_METADATA, check_metadata, metadata_of


def test_it_is_a_copy_of_any_mapping() -> None:
    given = {"a": "b", "n" * 255: ""}

    checked = check_metadata(MappingProxyType(given))

    assert checked == given
    assert checked is not given


def test_it_has_a_bound_on_all_its_octets() -> None:
    at_most = "x" * (MAX_METADATA - 2)
    assert check_metadata({"ü": at_most})
    with pytest.raises(ValueError, match=f"has {MAX_METADATA + 1} bytes, more than {MAX_METADATA}"):
        check_metadata({"ü": at_most + "x"})


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ({}, {}),
        ({"trace": "a1", "x-qam-resent": 5, "x-text": "b", "X-Text": "b"}, {"trace": "a1"}),
        ({"number": 5, "bytes": b"b", "none": None, "list": ["a"]}, {}),
        ({"a": "x" * MAX_METADATA}, {}),
        ({"a": "\udc80"}, {}),
        ({"": "a"}, {}),
        ({"\udc80": "a"}, {}),
    ],
    ids=["none", "headers of protocols", "no texts", "too much", "no text", "no name", "bad name"],
)
def test_of_received_headers_it_is_what_a_caller_could_have_sent(
    headers: dict[str, Any], found: dict[str, str]
) -> None:
    assert metadata_of(headers) == found
