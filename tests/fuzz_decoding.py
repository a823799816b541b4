"""Feeds decoders with what atheris finds out to be interesting, until it is stopped.

``tox run -e fuzz -- -max_total_time=600`` (all of libFuzzer's options work). It ends with a
traceback and the message in a file if a message leads to anything but a value or an ordinary
exception, runs or imports something, or takes more memory or time than the limits say.
"""

import pickle
import sys

import atheris

with atheris.instrument_imports(include=["qam", "pickle"]):
    from qam._broker.messages import Delivery
    from qam._protocol.bodies import decode
    from qam._protocol.replies import decode_reply, outcome
    from qam._protocol.requests import Request
    from qam._serialization.serializers import get_serializer

from tests.support.hostile_pickles import BOMBS, CALLS, GADGETS
from tests.support.watch import nothing_but_values

SERIALIZERS = [get_serializer(name) for name in ("pickle", "json", "msgpack")]
MAX_LENGTH = 4096
LIMITS = ["-rss_limit_mb=2048", "-timeout=10", f"-max_len={MAX_LENGTH}"]


def receive(octets: bytes) -> None:
    """What both sides make of a message; its first byte says which serializer it is for."""
    serializer = SERIALIZERS[octets[0] % len(SERIALIZERS)] if octets else SERIALIZERS[0]
    delivery = Delivery(octets[1:], 1, properties={"content_type": serializer.content_type})
    with nothing_but_values():
        try:
            Request.from_body(decode(serializer, delivery))
        except Exception as error:
            repr(error)
        try:
            outcome(decode_reply(serializer, delivery))
        except Exception as error:
            repr(error)


def main() -> None:
    seeds = [call(*gadget) for gadget in GADGETS for call in CALLS.values()]
    seeds += [*BOMBS.values(), pickle.dumps({"id": 1, "method_name": "add", "params": (1, 2)})]
    for seed in (each for each in seeds if len(each) < MAX_LENGTH):
        receive(b"\0" + seed)
    atheris.Setup([sys.argv[0], *LIMITS, *sys.argv[1:]], receive)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
