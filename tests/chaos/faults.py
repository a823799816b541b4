"""The faults: what each does to the stage, how often it is drawn, and what it says it has done."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from qam._protocol.entities import reply_binding, reply_exchange, request_binding
from tests.chaos.children import Child
from tests.chaos.part import SERVER_ID
from tests.chaos.stage import REPLY_QUEUE_SUFFIX, Stage

REQUESTS = request_binding(SERVER_ID)

_PAUSE = (1.0, 8.0)  # seconds between two faults, from … to
_ALARM = 1.0  # seconds
_RATE, _SLOW = (500.0, 20_000.0), (2.0, 8.0)  # bytes a second, and for how many seconds
_STOP = (1.0, 2.0)  # seconds that a server is stopped, from … to


def _kill_broker(stage: Stage, draw: random.Random) -> str:
    stage.node.restart()
    return "the broker was killed and is back"


def _close_connections(stage: Stage, draw: random.Random) -> str:
    stage.node.close_all_connections("chaos")
    return "the broker closed all connections"


def _close_one_connection(stage: Stage, draw: random.Random) -> str:
    stage.node.close_one_connection(draw.randrange(1000), "chaos")
    return "the broker closed one connection"


def _raise_memory_alarm(stage: Stage, draw: random.Random) -> str:
    with stage.node.memory_alarm():
        time.sleep(_ALARM)
    return f"the broker had a memory alarm for {_ALARM} s"


def _delete_reply_queue(stage: Stage, draw: random.Random) -> str:
    queues = stage.reply_queues()
    if not queues:  # the last fault has deleted it, and its client is not back yet
        return "no reply queue was there to be deleted"
    queue = draw.choice(queues)
    stage.node.delete_queue(queue)
    return f"the reply queue {queue} was deleted"


def _delete_exchange(stage: Stage, draw: random.Random) -> str:
    exchange = draw.choice([REQUESTS.exchange, reply_exchange(SERVER_ID)])
    stage.node.delete_exchange(exchange)
    return f"the exchange {exchange} was deleted"


def _delete_binding(stage: Stage, draw: random.Random) -> str:
    queues = stage.reply_queues()
    if not queues or draw.randrange(2):
        binding = REQUESTS
    else:
        queue = draw.choice(queues)
        client_id = queue.removesuffix(REPLY_QUEUE_SUFFIX)
        binding = reply_binding(SERVER_ID, client_id)._replace(queue=queue)
    stage.node.unbind(*binding)
    return f"the queue {binding.queue} was unbound"


def _delete_request_queue(stage: Stage, draw: random.Random) -> str:
    if REQUESTS.queue not in stage.node.queues():
        return "no request queue was there to be deleted"
    stage.node.delete_queue(REQUESTS.queue)
    return "the request queue was deleted with all requests in it"


def _slow_link(stage: Stage, draw: random.Random) -> str:
    rate, seconds = draw.uniform(*_RATE), draw.uniform(*_SLOW)
    stage.link.slow(rate)
    try:
        time.sleep(seconds)
    finally:
        stage.link.resume()
    return f"the clients' connections had {rate:.0f} bytes a second for {seconds:.1f} s"


def _kill_server(stage: Stage, draw: random.Random) -> str:
    old = _some_server(stage, draw)
    stage.servers.remove(old)
    old.kill()
    return f"{old} was killed; its successor is {stage.start_server()}"


def _end_server(stage: Stage, draw: random.Random) -> str:
    old = _some_server(stage, draw)
    stage.end_server(old)
    return f"{old} was ended gracefully; its successor is {stage.start_server()}"


def _roll(stage: Stage, draw: random.Random) -> str:
    old = list(stage.servers)
    for server in old:
        stage.start_server()
        stage.end_server(server)
    return f"{', '.join(map(str, old))} were replaced, one after the other"


def _stop_server(stage: Stage, draw: random.Random) -> str:
    server, seconds = _some_server(stage, draw), draw.uniform(*_STOP)
    server.stop()
    try:
        time.sleep(seconds)
    finally:
        server.go_on()
    return f"{server} was stopped for {seconds:.1f} s"


def _some_server(stage: Stage, draw: random.Random) -> Child:
    return draw.choice(stage.servers)


@dataclass(frozen=True)
class Fault:
    """A kind of fault. `strike` returns when everything is there again, and says what it did."""

    name: str
    weight: int
    strike: Callable[[Stage, random.Random], str]


# The kill of the broker is rarer than others: nothing else happens in the seconds that it takes.
FAULTS = (
    Fault("broker killed and restarted", 3, _kill_broker),
    Fault("all connections closed", 4, _close_connections),
    Fault("one connection closed", 6, _close_one_connection),
    Fault("memory alarm", 3, _raise_memory_alarm),
    Fault("reply queue deleted", 4, _delete_reply_queue),
    Fault("exchange deleted", 3, _delete_exchange),
    Fault("binding deleted", 3, _delete_binding),
    Fault("request queue deleted", 2, _delete_request_queue),
    Fault("slow link", 4, _slow_link),
    Fault("server killed and replaced", 4, _kill_server),
    Fault("server ended and replaced", 3, _end_server),
    Fault("rolling restart", 2, _roll),
    Fault("server stopped for a while", 3, _stop_server),
)


def draw_pause(draw: random.Random) -> float:
    """The seconds until the next fault."""
    return draw.uniform(*_PAUSE)


def draw_fault(draw: random.Random) -> Fault:
    """The next fault."""
    [fault] = draw.choices(FAULTS, weights=[each.weight for each in FAULTS])
    return fault
