"""Runs the ``async def`` methods of a server, while a worker waits for each."""

import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from typing import TYPE_CHECKING, Any

from qam._common.deadline import Deadline
from qam._common.own_locks import own_lock

if TYPE_CHECKING:
    from qam._server.event_loop_thread import EventLoopThread, Outcome


class Coroutines:
    """Runs coroutines for the workers of one server; its thread starts with the first."""

    def __init__(self) -> None:
        # Guards that no coroutine is handed to an event loop that has ended.
        self._lock = own_lock()
        self._thread: EventLoopThread | None = None
        self._closed = False

    def run(self, method: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Call *method* on the event loop, in the context of the caller; wait for its result.

        :raises concurrent.futures.CancelledError: the coroutine was cancelled, or the server
            has no more time for it.
        """
        result, error = self._begin(method, args, kwargs).result()
        if error is not None:
            raise error
        return result

    def _begin(self, method: Callable[..., Any], args: Any, kwargs: Any) -> "Future[Outcome]":
        with self._lock:
            if self._closed:
                raise CancelledError("the server closes")
            if self._thread is None or self._thread.has_ended:
                self._thread = _started_thread(self._lock)
            return self._thread.begin(method, args, kwargs)

    @property
    def is_here(self) -> bool:
        """True if the calling thread is that of the event loop."""
        return threading.current_thread() is self._thread

    def close(self) -> None:
        """Cancel what runs, and run nothing any more; waits for nothing."""
        with self._lock:
            self._closed = True
            if self._thread is not None:
                self._thread.stop()

    def join(self, deadline: Deadline) -> None:
        """Wait for the end of what was cancelled, until *deadline* at most."""
        if self._thread is not None:
            self._thread.join(deadline.wait_time())


def _started_thread(lock: Any) -> "EventLoopThread":
    from qam._server.event_loop_thread import EventLoopThread  # loads asyncio

    thread = EventLoopThread(lock)
    thread.start()
    return thread


class Awaited:
    """A plain function that waits for the result of a coroutine function.

    :param method: the coroutine function; :func:`inspect.signature` finds it.
    :param coroutines: run it.
    """

    __slots__ = ("__wrapped__", "_coroutines")

    def __init__(self, method: Callable[..., Any], coroutines: Coroutines) -> None:
        self.__wrapped__ = method
        self._coroutines = coroutines

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        return self._coroutines.run(self.__wrapped__, args, kwargs)
