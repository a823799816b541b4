"""The thread that runs the ``async def`` methods of a server, on one event loop.

It loads asyncio, so it is imported with the first call of such a method.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, InvalidStateError
from contextlib import suppress
from typing import Any

from qam._common.own_threads import OwnThread

#: What a coroutine has returned; or None, and what it has raised.
Outcome = tuple[Any, BaseException | None]


class EventLoopThread(OwnThread):
    """The thread of one event loop.

    :param lock: is held by whoever calls :meth:`begin` or :meth:`stop`.
    """

    def __init__(self, lock: Any) -> None:
        # A daemon: a coroutine that can't be cancelled must not hold up the interpreter's end.
        super().__init__(name="qam EventLoopThread", daemon=True)
        self._lock = lock
        self._loop = asyncio.new_event_loop()
        # Those for which workers wait.
        self._unfinished: set[Future[Outcome]] = set()
        #: Nothing can be begun any more.
        self.has_ended = False

    def start(self) -> None:
        """Start the thread.

        :raises RuntimeError: no thread can be started.
        """
        try:
            super().start()
        except RuntimeError:
            self._loop.close()
            raise

    def begin(self, method: Callable[..., Any], args: Any, kwargs: Any) -> Future[Outcome]:
        """Begin to run *method*, in a copy of the context of the calling thread."""
        outcome = _outcome_of(method, args, kwargs)
        future = asyncio.run_coroutine_threadsafe(outcome, self._loop)
        self._unfinished.add(future)
        future.add_done_callback(self._unfinished.discard)
        return future

    def stop(self) -> None:
        """Let the thread end, which cancels what runs; waits for nothing."""
        if not self.has_ended:
            self._loop.call_soon_threadsafe(self._loop.stop)

    def run(self) -> None:
        """Run coroutines until the loop is stopped; then cancel those that are left."""
        try:
            with suppress(SystemExit), asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                self._run_until_stopped(runner)
        finally:  # a task that raises SystemExit while it is cancelled leaves others as they are
            for future in tuple(self._unfinished):
                with suppress(InvalidStateError):
                    future.set_exception(CancelledError("the event loop has ended"))

    def _run_until_stopped(self, runner: asyncio.Runner) -> None:
        try:
            runner.get_loop().run_forever()
        finally:  # perhaps the application has stopped it, as by SystemExit in a task
            with self._lock:
                self.has_ended = True
            # What was handed over becomes a task, which can be cancelled.
            runner.run(asyncio.sleep(0))


async def _outcome_of(method: Callable[..., Any], args: Any, kwargs: Any) -> Outcome:
    """Return what *method* returns, or raises: some exceptions would end the event loop."""
    try:
        return await method(*args, **kwargs), None
    except (SystemExit, KeyboardInterrupt) as error:
        return None, error
