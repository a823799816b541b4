"""What the fuzzer feeds works without it, too."""

import pytest

from tests.support import fuzz_targets
from tests.support.cpython_reader import CPythonReader
from tests.support.differential import DisagreementError
from tests.support.test_differential import take_numbers_in_any_form


@pytest.mark.watched
def test_every_target_takes_what_it_begins_with() -> None:
    with fuzz_targets.cpython:
        for seed in fuzz_targets.seeds():
            fuzz_targets.receive(seed)
    fuzz_targets.receive(b"")


def test_the_readers_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    with CPythonReader() as cpython:
        monkeypatch.setattr(fuzz_targets, "cpython", cpython)
        for body in fuzz_targets.seeds_to_compare():
            fuzz_targets.receive(b"\0" + body)

        take_numbers_in_any_form(monkeypatch)
        with pytest.raises(DisagreementError):
            fuzz_targets.receive(b"\0I-0\n.")
