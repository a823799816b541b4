"""Celery with the result backend `rpc://`, and else its defaults.

The worker has a process per CPU (prefork), each with a prefetch of 4; messages are persistent, and
acknowledged as a task begins; results are transient. All is JSON, in which bytes are base64.
"""

from collections.abc import Callable
from typing import Any

from celery import Celery
from celery.signals import worker_ready

from tests.benchmarks import by_handles
from tests.benchmarks.contract import GIVES_UP_AFTER, add, echo
from tests.benchmarks.place import Place


def _app(place: Place) -> Celery:
    app = Celery("benchmark", broker=place.url, backend="rpc://")
    app.conf.task_default_queue = place.name
    app.task(add, name="add")
    app.task(echo, name="echo")
    return app


def _result(handle: Any) -> Any:
    return handle.get(timeout=GIVES_UP_AFTER)


class Client:
    """An app."""

    shared_by_threads = False  # an app shared by 16 threads missed a result for a minute

    def __init__(self, place: Place, variant: str) -> None:
        self._app = _app(place)
        self._begin_add = self._app.tasks["add"].delay
        self._begin_echo = self._app.tasks["echo"].delay
        self.close = self._app.close

    def add(self, a: int, b: int) -> int:
        return _result(self._begin_add(a, b))

    def echo(self, payload: bytes) -> bytes:
        return _result(self._begin_echo(payload))

    def pipeline(self, calls: int, outstanding: int) -> None:
        by_handles.pipeline(lambda: self._begin_add(2, 3), _result, calls, outstanding)


def serve(place: Place, variant: str, ready: Callable[[], object]) -> None:
    worker_ready.connect(lambda **_: ready(), weak=False)
    _app(place).worker_main(["worker", "--loglevel=ERROR", "--hostname=benchmark@localhost"])
