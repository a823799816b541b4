import pytest

from qam._server.prefetch import Prefetch


def after(prefetch: Prefetch, seconds: float, times: int) -> int:
    for _ in range(times):
        prefetch.adapt([seconds])
    return prefetch.wanted


def test_it_begins_with_as_many_as_there_are_workers() -> None:
    assert Prefetch(32).wanted == 32


def test_short_methods_make_it_many() -> None:
    assert after(Prefetch(32), 0.0001, 100) == 256


def test_one_short_method_changes_nothing_yet() -> None:
    assert after(Prefetch(32), 0.0001, 1) == 32


def test_long_methods_make_it_as_many_as_there_are_workers_again() -> None:
    prefetch = Prefetch(32)
    assert after(prefetch, 0.0001, 100) == 256

    assert after(prefetch, 1.0, 1) == 32


@pytest.mark.parametrize("before", [0.0001, 1.0])
def test_between_short_and_long_it_stays_what_it_was(before: float) -> None:
    prefetch = Prefetch(32)
    wanted = after(prefetch, before, 100)

    assert after(prefetch, 0.0075, 1000) == wanted


def test_it_is_never_less_than_there_are_workers() -> None:
    assert after(Prefetch(1000), 0.0001, 100) == 1000


@pytest.mark.parametrize("seconds", [0.0001, 1.0])
def test_a_fixed_one_follows_nothing(seconds: float) -> None:
    prefetch = Prefetch(32, fixed=4)

    assert prefetch.wanted == 4
    assert after(prefetch, seconds, 100) == 4


@pytest.mark.parametrize(("kept", "wanted"), [(0, 4), (1, 8), (4, 8), (5, 12), (70_000, 65_535)])
def test_what_is_only_kept_takes_no_room_from_others(kept: int, wanted: int) -> None:
    for prefetch in (Prefetch(4), Prefetch(32, fixed=4)):
        prefetch.kept = kept
        assert prefetch.wanted == wanted


def test_it_is_never_more_than_the_protocol_has_room_for() -> None:
    assert Prefetch(100_000).wanted == 65_535
    assert after(Prefetch(100_000), 0.0001, 100) == 65_535
