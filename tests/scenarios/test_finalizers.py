"""A finalizer or a signal handler that makes a call: it gets its result, or is told at once."""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import qam
from qam import QAMProxy
from qam.exceptions import QAMException
from tests.support.service import Service, make_server
from tests.support.waiting import finish

_LIBRARY = str(Path(qam.__file__).parent)
LONG = 30.0  # seconds; each call ends much sooner, or is stuck


class Finalizers:
    """At each step of the library, in each thread, there is a finalizer that makes a call.

    A step is a line, a call or a return.  The same one of a thread's class is taken once, so that
    there is an end.
    """

    def __init__(self) -> None:
        self.outcomes: dict[str, list[str]] = {}
        self._proxies: list[QAMProxy] = []
        self._taken: set[Any] = set()
        self._inside = threading.local()

    def call(self, *proxies: QAMProxy) -> None:
        """Have them call these proxies from now on."""
        self._proxies = list(proxies)

    def __call__(self, frame: FrameType, event: str, arg: Any) -> Any:
        if not frame.f_code.co_filename.startswith(_LIBRARY):
            return None
        step = (type(threading.current_thread()), frame.f_code, frame.f_lineno, event)
        if self._proxies and step not in self._taken:
            self._taken.add(step)
            for proxy in self._proxies:
                self._finalize(proxy, f"{event} {frame.f_code.co_qualname}:{frame.f_lineno}")
        return self

    def _finalize(self, proxy: QAMProxy, step: str) -> None:
        trace = sys.gettrace()
        sys.settrace(None)
        try:
            outcome = str(proxy.set_timeout(LONG).adder_function(1, 2))
        except QAMException as error:
            outcome = f"{error.executed}: {error}"
        finally:
            sys.settrace(trace)
        where = f"{step} in {threading.current_thread().name}"
        self.outcomes.setdefault(outcome, []).append(where)

    def assert_none_was_stuck(self) -> None:
        """Each call has its result, or was refused."""
        others = {
            outcome: steps
            for outcome, steps in self.outcomes.items()
            if outcome != "3" and "can't wait for its result here" not in outcome
        }
        assert not others
        assert all(outcome == "3" or outcome.startswith("no:") for outcome in self.outcomes)


@pytest.fixture
def finalizers() -> Iterator[Finalizers]:
    finalizers, trace = Finalizers(), sys.gettrace()
    threading.settrace(finalizers)
    try:
        yield finalizers
    finally:
        threading.settrace(None)  # type: ignore[arg-type]
        sys.settrace(trace)


@contextmanager
def everywhere(finalizers: Finalizers) -> Iterator[None]:
    """Have them in this thread too."""
    trace = sys.gettrace()
    sys.settrace(finalizers)
    try:
        yield
    finally:
        sys.settrace(trace)


def call(proxy: QAMProxy) -> None:
    assert proxy.add(1, 2) == 3


def call_back(proxy: QAMProxy) -> None:
    proxy.callback(len, repr).set_timeout(LONG).add([1], [2])


@pytest.mark.timeout(300)
@pytest.mark.parametrize("act", [call, call_back], ids=lambda act: act.__name__)
def test_a_call_of_a_finalizer_is_never_stuck(
    server_id: str, finalizers: Finalizers, act: Callable[[QAMProxy], None]
) -> None:
    # given the server and its proxies in one process, and finalizers at each step of all threads
    place = f"memory://{server_id}"
    with make_server(Service(), server_id=server_id, hostname=place) as server:
        server.start()
        with QAMProxy(server_id, place) as proxy, QAMProxy(server_id, place) as other:
            call(proxy)
            finalizers.call(proxy, other)
            # when
            for _ in range(3):
                with everywhere(finalizers):
                    act(proxy)
            finish(proxy)
            finalizers.call()
            # then
            finalizers.assert_none_was_stuck()
            assert len(finalizers.outcomes["3"]) > 100
            assert len(finalizers.outcomes) > 1
            call(proxy)
