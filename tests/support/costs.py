"""What messages cost that are made to cost much for their size, and honest ones.

``python -m tests.support.costs 1 4 16`` prints a table for messages of so many MiB: each is
decoded in a process of its own.
"""

import argparse
import json
import os
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import count

from qam._serialization.serializers import get_serializer
from tests.support.costly_messages import HONEST, HOSTILE

MIB = 2**20
#: What a process of such a test may take in all.
MOST_MEMORY, MOST_SECONDS = 4 * 2**30, 300


@dataclass(frozen=True)
class Cost:
    """What decoding one message has cost."""

    outcome: str  # built, or refused
    memory: int  # bytes, beside those of the message
    cpu: float  # seconds
    stall: float  # of CPU seconds, the longest in which no other thread ran


def cost_of(serializer: str, make: Callable[[int], bytes], size: int) -> Cost:
    """Decode a message in a child of this process, and say what it cost.

    Another child makes the message.  What that takes could hide what decoding takes.
    """
    body, _ = _in_child(lambda: make(size))
    assert body, "the message could not be made"
    answer, status = _in_child(lambda: json.dumps(_decode(serializer, body)).encode())
    if not answer:
        return Cost(f"ended by {status}", sys.maxsize, float("inf"), float("inf"))
    return Cost(*json.loads(answer))


def _in_child(run: Callable[[], bytes]) -> tuple[bytes, int]:
    """Return what *run* returns in a child of this process, and how the child ended."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(reader)
        try:
            with os.fdopen(writer, "wb") as answer:
                answer.write(run())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as answer:
        octets = answer.read()
    _, status = os.waitpid(child, 0)
    return octets, status


def _decode(serializer: str, body: bytes) -> tuple[str, int, float, float]:
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (MOST_SECONDS, MOST_SECONDS))
    decode = get_serializer(serializer).decode
    before = _peak()
    with _other_thread() as stalls:
        start = time.thread_time()
        try:
            kept = decode(body)
            outcome = "built"
        except Exception as error:
            kept, outcome = None, f"refused: {error}"[:60]
        cpu = time.thread_time() - start
    memory = _peak() - before
    del kept
    return outcome, memory, cpu, max(stalls, default=0.0)


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@contextmanager
def _other_thread() -> Iterator[list[float]]:
    """Note how much CPU time the process takes between two moments at which another thread runs."""
    done, stalls = threading.Event(), list[float]()

    def tick() -> None:
        last = time.process_time()
        for _ in count():
            finished = done.wait(0.01)
            now = time.process_time()
            stalls.append(now - last)
            last = now
            if finished:
                return

    thread = threading.Thread(target=tick)
    thread.start()
    try:
        yield stalls
    finally:
        done.set()
        thread.join()


def allowed_memory(serializer: str, size: int) -> int:
    """Return how many bytes a message of *size* bytes may take."""
    return 64 * MIB + (40 if serializer == "json" else 80) * size


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("sizes", nargs="*", type=int, default=[1, 4, 16], help="in MiB")
    parser.add_argument("--of", nargs=2, metavar=("SERIALIZER", "NAME"), help="one message alone")
    options = parser.parse_args()
    if options.of:
        make = (HONEST | HOSTILE)[tuple(options.of)]
        for size in options.sizes:
            print(json.dumps(asdict(cost_of(options.of[0], make, size * MIB))))
    else:
        print_table(options.sizes)


def print_table(sizes: list[int]) -> None:
    """Print what every message costs in each of *sizes*."""
    print(f"{'message':<44}{'MiB':>4}{'memory MiB':>12}{'x':>6}{'CPU s':>8}{'stall s':>9}  outcome")
    for kind, messages in (("honest", HONEST), ("", HOSTILE)):
        for (serializer, name), make in messages.items():
            for size in sizes:
                cost = cost_of(serializer, make, size * MIB)
                memory = cost.memory / MIB
                print(
                    f"{kind + ' ' + serializer + ', ' + name:<44}{size:>4}{memory:>12.0f}"
                    f"{memory / size:>6.0f}{cost.cpu:>8.2f}{cost.stall:>9.2f}  {cost.outcome}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
