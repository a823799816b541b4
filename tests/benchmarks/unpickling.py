"""What the restricted unpickler costs, beside a plain one.

``python -m tests.benchmarks.unpickling`` prints microseconds per message: the least of several
rounds, which alternate between the two.
"""

import argparse
import datetime
import decimal
import pickle
import timeit
from collections.abc import Callable
from typing import Any

import qam
from qam._serialization.serializers import PickleSerializer


@qam.trust
class Point:
    """What an application sends of its own."""

    def __init__(self, x: float, y: float) -> None:
        self.x, self.y = x, y


def request(*params: Any) -> dict[str, Any]:
    """A request as it travels."""
    return {
        "id": 2**51 + 12345,
        "method_name": "instance.method",
        "routing_key": "client.0123456789abcdef0123456789abcdef_client_routing_key",
        "params": params,
    }


MESSAGES = {
    "add(2, 3)": request(2, 3),
    "text, list and dict": request("some text", list(range(20)), {"key": "value", "n": 1.5}),
    "a date and a Decimal": request(datetime.datetime(2024, 2, 29), decimal.Decimal("1.50")),
    "a trusted object": request(Point(1.0, 2.0)),
    "100 kB of bytes": request(b"x" * 100_000),
}


def compare(body: bytes, rounds: int) -> tuple[float, float]:
    """Microseconds that it takes to unpickle *body*: plainly, and restricted."""
    plain, restricted = timeit.Timer(lambda: pickle.loads(body)), timer_of(PickleSerializer(), body)
    number = max(1, int(0.02 / max(restricted.timeit(10) / 10, 1e-7)))
    pairs = [(plain.timeit(number), restricted.timeit(number)) for _ in range(rounds)]
    least = [min(times) / number * 1e6 for times in zip(*pairs, strict=True)]
    return least[0], least[1]


def timer_of(serializer: PickleSerializer, body: bytes) -> timeit.Timer:
    decode: Callable[[bytes], Any] = serializer.decode
    return timeit.Timer(lambda: decode(body))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15, help="how often each is measured")
    rounds = parser.parse_args().rounds
    print(f"{'message':<24}{'protocol':>9}{'plain µs':>10}{'restricted µs':>15}{'more µs':>9}")
    for name, message in MESSAGES.items():
        for protocol in (2, pickle.DEFAULT_PROTOCOL):
            body = PickleSerializer(protocol).encode(message)
            plain, restricted = compare(body, rounds)
            more = restricted - plain
            print(f"{name:<24}{protocol:>9}{plain:>10.2f}{restricted:>15.2f}{more:>9.2f}")


if __name__ == "__main__":
    main()
