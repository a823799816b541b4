"""A client process of the soak. SIGTERM has it make no more calls, and end when all have ended."""

import faulthandler
import functools
import itertools
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from qam import QAMProxy
from tests.chaos.calls import HUNG_AFTER, TIMEOUT, Call, draw_call
from tests.chaos.outcomes import Outcome, of_exception, of_nothing, of_value
from tests.chaos.part import Part

_SYNC_THREADS = 4
_CALLBACKS_OUTSTANDING = 50
# A proxy that is dead fails each call at once: that is not to become a million lines.
_PAUSE_AFTER_AN_ERROR = 0.05  # seconds
_THREADS_END_WITHIN = 10.0  # seconds


class Book:
    """The calls of this client: those that are open, and in the file what became of the others."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", buffering=1)
        self._open: dict[Call, float] = {}  # since when
        self._more = self._writing = True
        # Guards all of them; notified when a call has ended.
        self._changed = threading.Condition()

    def begin(self, call: Call) -> bool:
        """The call is about to be made; False if there are to be no more."""
        with self._changed:
            if self._more:
                self._open[call] = time.monotonic()
            return self._more

    def end(self, call: Call, judge: Callable[[float], Outcome]) -> Outcome:
        """The call has ended; `judge` tells from its seconds what became of it.

        One that ends a second time is written a second time, for the verdict to see.
        """
        now = time.monotonic()
        with self._changed:
            outcome = judge(now - self._open.pop(call, now))
            self._write(outcome)
            self._changed.notify_all()
        return outcome

    def wait_for_all(self, timeout: float) -> bool:
        """Lets no more calls begin, and waits until all have ended; False if some are hung."""
        with self._changed:
            self._more = False
            all_ended = self._changed.wait_for(lambda: not self._open, timeout)
            now = time.monotonic()
            for call, since in self._open.items():
                self._write(of_nothing(call, now - since))
            # What the close of the proxy does to the hung is no outcome of theirs.
            self._writing = all_ended
        return all_ended

    def close(self) -> None:
        """Nothing can come any more: the proxy is closed."""
        with self._changed:
            self._writing = False
            self._file.close()

    def _write(self, outcome: Outcome) -> None:
        if self._writing:
            self._file.write(outcome.as_line())


class Client:
    """Makes calls with one proxy, in several threads, until it is told to stop."""

    def __init__(self, part: Part) -> None:
        self._part = part
        self._book = Book(part.outcomes)
        self._may_call_back = threading.Semaphore(_CALLBACKS_OUTSTANDING)
        self._proxy = QAMProxy(**part.place, client_id=part.name, timeout=TIMEOUT)

    def start(self) -> None:
        """Starts the threads. They are daemons: one that hangs must not hold up the end."""
        for number in range(1, _SYNC_THREADS + 1):
            self._start_thread(self._make_sync_calls, f"sync-{number}")
        self._start_thread(self._make_callback_calls, "callback")

    def _start_thread(self, target: Callable[[str], None], name: str) -> None:
        threading.Thread(target=target, name=name, args=(name,), daemon=True).start()

    def _calls(self, name: str) -> Iterator[Call]:
        """The calls of one thread, without end: for the same seed always the same."""
        draw = random.Random(f"{self._part.seed} {self._part.name} {name}")
        kind = name.partition("-")[0]
        for number in itertools.count(1):
            yield draw_call(draw, f"{self._part.name}.{name}.{number}", kind)

    def _make_sync_calls(self, name: str) -> None:
        for call in self._calls(name):
            if not self._book.begin(call):
                return
            try:
                value = self._proxy[call.method](*call.args)
            except Exception as error:
                self._failed(call, error)
            else:
                self._returned(call, value)

    def _make_callback_calls(self, name: str) -> None:
        for call in self._calls(name):
            self._may_call_back.acquire()
            if not self._book.begin(call):
                return
            returned = functools.partial(self._called_back, self._returned, call)
            failed = functools.partial(self._called_back, self._failed, call)
            try:
                self._proxy.callback(returned, failed)[call.method](*call.args)
            except Exception as error:
                failed(error)

    def _called_back(
        self, end: Callable[[Call, Any], None], call: Call, value_or_error: Any
    ) -> None:
        end(call, value_or_error)
        self._may_call_back.release()

    def _returned(self, call: Call, value: Any) -> None:
        self._book.end(call, functools.partial(of_value, call, value))

    def _failed(self, call: Call, error: Exception) -> None:
        outcome = self._book.end(call, functools.partial(of_exception, call, error))
        if outcome.executed is not None:
            time.sleep(_PAUSE_AFTER_AN_ERROR)

    def stop(self) -> None:
        """Makes no more calls, waits until those that there are have ended, closes the proxy."""
        if not self._book.wait_for_all(HUNG_AFTER):
            with self._part.log.open("a") as log:
                faulthandler.dump_traceback(log, all_threads=True)
        self._proxy.close()
        self._book.close()


def threads_left(within: float) -> list[str]:
    """The names of the threads, except this one, that have not ended after `within` seconds."""
    deadline = time.monotonic() + within
    others = [each for each in threading.enumerate() if each is not threading.current_thread()]
    for thread in others:
        thread.join(max(0.0, deadline - time.monotonic()))
    return [thread.name for thread in others if thread.is_alive()]


def main() -> None:
    # Before there is any thread: all have it blocked then, and sigwait takes it.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    part = Part.from_command_line()
    part.set_up_logging()
    client = Client(part)
    client.start()
    part.say_ready()
    signal.sigwait({signal.SIGTERM})
    client.stop()
    part.threads_left.write_text("\n".join(threads_left(_THREADS_END_WITHIN)))


if __name__ == "__main__":
    main()
