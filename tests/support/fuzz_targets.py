"""What a fuzzer feeds, and with what it begins."""

import pickle
import warnings
from collections.abc import Callable, Iterator

from qam._broker.messages import Delivery
from qam._protocol.bodies import decode
from qam._protocol.replies import decode_reply, outcome
from qam._protocol.requests import Request
from qam._serialization.refusals import Receiver
from qam._serialization.serializers import Serializer, get_serializer
from tests.support import pickle_bodies
from tests.support.cpython_reader import CPythonReader
from tests.support.differential import compare
from tests.support.hostile_pickles import BOMBS, CALLS, GADGETS
from tests.support.watch import nothing_but_values

CLIENT = Receiver("client", "a1")
SERVER = Receiver("server", "shop")
MAX_LENGTH = 4096
_SERIALIZERS = [get_serializer(name) for name in ("pickle", "json", "msgpack")]


def receive(octets: bytes) -> None:
    """The first byte says which target gets the rest."""
    targets: list[Callable[[bytes], None]] = [
        compared,
        *(_received_by(serializer) for serializer in _SERIALIZERS),
    ]
    if octets:
        targets[octets[0] % len(targets)](octets[1:])


def seeds() -> Iterator[bytes]:
    """What a fuzzer begins with."""
    hostile = [call(*gadget) for gadget in GADGETS for call in CALLS.values()]
    request = pickle.dumps({"id": 1, "method_name": "add", "params": (1, 2)})
    for seed in (*hostile, *BOMBS.values(), request):
        if len(seed) < MAX_LENGTH:
            yield b"\1" + seed
    for seed in seeds_to_compare():
        yield b"\0" + seed


def seeds_to_compare() -> list[bytes]:
    """What CPython's own unpicklers are given first."""
    return [*pickle_bodies.SHORT.values(), *pickle_bodies.HIDDEN[::15], *pickle_bodies.ODD[::20]]


#: Starts its process when it is first needed.
cpython = CPythonReader()


def compared(body: bytes) -> None:
    """What this library builds of a body, CPython builds as well."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of escapes in a text that CPython does not know
        compare(cpython, body)


def _received_by(serializer: Serializer) -> Callable[[bytes], None]:
    """What both sides make of a message leads to nothing but values and ordinary exceptions."""

    def receive(body: bytes) -> None:
        delivery = Delivery(body, 1, properties={"content_type": serializer.content_type})
        with nothing_but_values():
            try:
                Request.from_body(decode(serializer, delivery, SERVER))
            except Exception as error:
                repr(error)
            try:
                outcome(decode_reply(serializer, delivery, CLIENT))
            except Exception as error:
                repr(error)

    return receive
