"""Runs the ``async def`` methods of a server, on one event loop in one thread.

It loads asyncio, so only a server that has such a method imports it.
"""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from typing import Any

from qam._common.deadline import Deadline
from qam._common.own_threads import OwnThread

_Outcome = tuple[Any, BaseException | None]


class Coroutines:
    """Runs coroutines for the workers of one server; its thread starts with the first."""

    def __init__(self) -> None:
        # Guards that no coroutine is handed to an event loop that has ended.
        self._lock = threading.Lock()
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

    def _begin(self, method: Callable[..., Any], args: Any, kwargs: Any) -> "Future[_Outcome]":
        with self._lock:
            if self._closed:
                raise CancelledError("the server closes")
            if self._thread is None or self._thread.has_ended:
                thread = EventLoopThread(self._lock)
                thread.start()
                self._thread = thread
            # It copies the context of this thread.
            return asyncio.run_coroutine_threadsafe(
                _outcome_of(method, args, kwargs), self._thread.loop
            )

    @property
    def is_here(self) -> bool:
        """True if the calling thread is that of the event loop."""
        return threading.current_thread() is self._thread

    def close(self) -> None:
        """Cancel what runs, and run nothing any more; waits for nothing."""
        with self._lock:
            self._closed = True
            if self._thread is not None and not self._thread.has_ended:
                self._thread.loop.call_soon_threadsafe(self._thread.loop.stop)

    def join(self, deadline: Deadline) -> None:
        """Wait for the end of what was cancelled, until *deadline* at most."""
        if self._thread is not None:
            self._thread.join(deadline.wait_time())


class EventLoopThread(OwnThread):
    """The thread of one event loop.

    :param lock: is held by whoever hands over a coroutine.
    """

    def __init__(self, lock: threading.Lock) -> None:
        # A daemon: a coroutine that can't be cancelled must not hold up the interpreter's end.
        super().__init__(name="qam EventLoopThread", daemon=True)
        self._lock = lock
        self.loop = asyncio.new_event_loop()
        #: Nothing may be handed over any more.
        self.has_ended = False

    def start(self) -> None:
        """Start the thread.

        :raises RuntimeError: no thread can be started.
        """
        try:
            super().start()
        except RuntimeError:
            self.loop.close()
            raise

    def run(self) -> None:
        """Run coroutines until the loop is stopped; then cancel those that are left."""
        with asyncio.Runner(loop_factory=lambda: self.loop) as runner:
            try:
                runner.get_loop().run_forever()
            finally:  # perhaps the application has stopped it, as by SystemExit in a task
                with self._lock:
                    self.has_ended = True
                # What was handed over becomes a task, which can be cancelled.
                runner.run(asyncio.sleep(0))


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


async def _outcome_of(method: Callable[..., Any], args: Any, kwargs: Any) -> _Outcome:
    """Return what *method* returns, or raises: some exceptions would end the event loop."""
    try:
        return await method(*args, **kwargs), None
    except (SystemExit, KeyboardInterrupt) as error:
        return None, error
