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
    ("value", "error", "told"),
    [
        (["a"], TypeError, "must be a mapping, or return one, not list"),
        ({"a": 5}, TypeError, "must map str to str, not 'a' to 5"),
        ({5: "a"}, TypeError, "must map str to str, not 5 to 'a'"),
        ({"": "a"}, ValueError, "unlike ''"),
        ({"n" * 256: "a"}, ValueError, "a name has 1 to 255 bytes"),
        ({"X-Trace": "a"}, ValueError, "does not begin with 'x-', unlike 'X-Trace'"),
        ({"a": "\udc80"}, ValueError, "the text of 'a' can't be encoded"),
    ],
    ids=["list", "int", "int as name", "no name", "long name", "reserved name", "surrogate"],
)
def test_what_can_not_travel_is_refused(value: object, error: type[Exception], told: str) -> None:
    with pytest.raises(error, match=told):
        check_metadata(value)


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
