"""A client of another AMQP library, which numbers its requests from 1 each time it is started."""

import json
from itertools import count

from qam._broker.messages import Delivery, Publish
from qam._protocol.entities import reply_binding, request_binding
from qam._protocol.properties import properties
from qam._serialization.serializers import get_serializer
from tests.simulation.client import Outcome
from tests.simulation.connection import ModelConnection
from tests.simulation.world import SERVER_ID, World


class ForeignClient:
    """It has one queue for its replies, of one name, and never sends anything again."""

    def __init__(self, world: World, name: str) -> None:
        self._world, self.name = world, name
        self.outcomes: list[Outcome] = []
        self._binding = reply_binding(SERVER_ID, name)
        self._connection: ModelConnection | None = None
        self.start()

    def start(self) -> None:
        """Start it, or start it again: it has forgotten all, and its old replies are gone."""
        self._world.note("starts", self.name)
        self._numbers = count(1)
        self._open: dict[str, Outcome] = {}
        if self._connection is not None:
            self._connection.cut("its process ended")
        broker = self._world.broker
        self._connection = ModelConnection(
            broker, self.name, self._read, self._world.traffic(self.name)
        )
        self._connection.delete_queue(self._binding.queue)
        self._connection.declare_exchange(self._binding.exchange)
        self._connection.declare_queue(self._binding)
        self._connection.consume(self._binding.queue, no_ack=True)

    @property
    def waits(self) -> bool:
        """True while a reply may still come."""
        return bool(self._open)

    def call(self, token: str, method: str, seconds: float) -> None:
        assert self._connection is not None
        number = str(next(self._numbers))
        outcome = Outcome(token, self.name, method, self._world.schedule.now)
        self._open[number] = outcome
        self.outcomes.append(outcome)
        self._world.note(f"calls {method} ({seconds:g} s)", self.name, token, f"as {number}")
        key, serializer = self._binding.routing_key, get_serializer("json")
        body = {"id": 0, "method_name": method, "routing_key": key, "params": [token, seconds]}
        own = properties(serializer, reply_to=key, correlation_id=number)
        route = request_binding(SERVER_ID).route
        self._connection.write([Publish(route, serializer.encode(body), own)])

    def _read(self) -> None:
        assert self._connection is not None
        for event in self._connection.take_events():
            if isinstance(event, Delivery):
                self._take(event)

    def _take(self, reply: Delivery) -> None:
        outcome = self._open.pop(reply.correlation_id or "", None)
        if outcome is not None:
            outcome.ended_at = self._world.schedule.now
            outcome.result = json.loads(reply.body)["result"]
            self._world.note(str(outcome), self.name, outcome.token)
