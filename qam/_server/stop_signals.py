"""The signals that close a server while it waits in serve()."""

import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_NEVER_HANDLED = {getattr(signal, name, None) for name in ("SIGKILL", "SIGSTOP")}


def signals_to_stop_on(stop_on: Iterable[signal.Signals] | None) -> tuple[signal.Signals, ...]:
    """Return the signals that *stop_on* names; for None SIGTERM, if nothing handles it yet.

    :raises TypeError: *stop_on* is no list.
    :raises ValueError: it contains no signal, or one that can't be handled; or this is not the
        main thread, in which alone signals can be handled.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()
    if stop_on is None:
        is_free = in_main_thread and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        return (signal.SIGTERM,) if is_free else ()
    signals = _checked(stop_on)
    if signals and not in_main_thread:
        raise ValueError("stop_on: signals can be handled in the main thread only")
    return signals


def _checked(stop_on: Iterable[signal.Signals]) -> tuple[signal.Signals, ...]:
    if isinstance(stop_on, (int, str)) or not isinstance(stop_on, Iterable):
        raise TypeError(f"stop_on must be a list of signals, as [signal.SIGTERM], not {stop_on!r}")
    signals = tuple(stop_on)
    can_be_handled = signal.valid_signals() - _NEVER_HANDLED
    for each in signals:
        if each not in can_be_handled:
            raise ValueError(f"stop_on: {each!r} is no signal, or none that can be handled")
    return signals


@contextmanager
def closing_on(signals: Iterable[signal.Signals], close: Callable[[], None]) -> Iterator[None]:
    """While the context lasts, let the first of *signals* call *close*.

    A second one has the effect that it had before, as for SIGTERM the end of the process.
    """
    before: dict[int, Any] = {}

    def put_back() -> None:
        for each, handler in before.items():
            signal.signal(each, handler)

    def handle(number: int, frame: FrameType | None) -> None:
        for each in before:
            signal.signal(each, end)
        close()

    def end(number: int, frame: FrameType | None) -> None:
        put_back()
        signal.raise_signal(number)

    try:
        for each in signals:
            before[each] = signal.getsignal(each)
            signal.signal(each, handle)
        yield
    finally:
        put_back()
