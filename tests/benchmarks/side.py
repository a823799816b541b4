"""A process of the benchmark: the server or the client of a contestant.

    python -m tests.benchmarks.side client tests.benchmarks.contestants.raw '' '{"host": …}'

It says on its standard output when it is ready. A client then reads a request per line, as
{"action": "sync", "arguments": {"calls": 10}}, and writes an answer per line.
"""

import importlib
import json
import os
import queue
import sys
import threading
from typing import Any, TextIO

from tests.benchmarks import tether
from tests.benchmarks.actions import Actions, perform
from tests.benchmarks.place import Place


def _take_standard_output() -> TextIO:
    """What the driver reads; all that a library prints goes to standard error instead."""
    ours = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return ours


def _say(driver: TextIO, message: dict[str, Any]) -> None:
    print(json.dumps(message), file=driver, flush=True)


def _serve(module: str, variant: str, place: Place, driver: TextIO) -> None:
    tether.end_with_standard_input()
    importlib.import_module(module).serve(place, variant, lambda: _say(driver, {"ready": True}))


def _obey(module: str, variant: str, place: Place, driver: TextIO) -> None:
    requests: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def read() -> None:
        for line in tether.lines():
            requests.put(line)

    threading.Thread(target=read, name="tether", daemon=True).start()
    client = importlib.import_module(module).Client
    actions = Actions(lambda: client(place, variant))
    _say(driver, {"ready": True})
    while True:
        _say(driver, perform(actions, json.loads(requests.get())))


def main() -> None:
    role, module, variant, place = sys.argv[1:]
    play = {"server": _serve, "client": _obey}[role]
    play(module, variant, Place(**json.loads(place)), _take_standard_output())


if __name__ == "__main__":
    main()
