"""Servers of one server_id as their decisions make them: no thread, no socket, no time of day."""

from collections import deque
from collections.abc import Callable, Iterable
from itertools import count
from typing import Any

from qam._broker.messages import Delivery, Publish, QueueState
from qam._common.logs import get_logger
from qam._common.rare_warnings import RareWarnings
from qam._protocol.entities import request_binding, siblings_binding
from qam._serialization.serializers import get_serializer
from qam._server.call import Answer, Call
from qam._server.closing import CloseStep, Closing
from qam._server.intake import Decision, Decisions, Intake
from qam._server.messages import Messages

#: Turns of all servers after which they are taken to go round in circles.
MANY_TURNS = 1000


class Clock:
    """Stands still until the story goes on."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Broker:
    """The request queue of one server_id, the exchange between its servers, and the replies."""

    def __init__(self, server_id: str = "server") -> None:
        self.server_id = server_id
        self.clock = Clock()
        #: What waits in the request queue: each message, and whether it was delivered before.
        self.queue: deque[tuple[Publish, bool]] = deque()
        self.servers: list[Server] = []
        #: The replies that clients got: correlation id and body.
        self.replies: list[tuple[str, bytes]] = []

    def start(self, name: str, runs: Callable[[Call], bytes] | None = None) -> "Server":
        """Start a server, and let it take requests."""
        server = Server(self, name)
        self.servers.append(server)
        server.connect(without_gap=False)
        self.run()
        return server

    def send(self, number: int, time_to_live: float | None = None, **headers: Any) -> None:
        """A client calls."""
        properties: dict[str, Any] = {
            "correlation_id": f"client:{number}",
            "reply_to": "client_client_routing_key",
            "headers": headers,
        }
        if time_to_live is not None:
            properties["expiration"] = str(round(1000 * time_to_live))
        route = request_binding(self.server_id).route
        self.queue.append((Publish(route, b"request", properties), False))

    def state(self) -> QueueState:
        return QueueState(len(self.queue), sum(each.consuming for each in self.servers))

    def run(self) -> None:
        """Let the servers take turns until none of them has anything to do any more."""
        for _ in range(MANY_TURNS):
            active = [each.turn() for each in list(self.servers)]
            if True not in active:
                return
        raise AssertionError("the servers go round in circles")

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.clock.now += seconds
        self.run()

    def publish(self, message: Publish) -> None:
        """A server publishes something, which arrives."""
        if message.route == request_binding(self.server_id).route:
            self.queue.append((message, False))
        elif message.route == siblings_binding(self.server_id, "").route:
            for each in self.servers:
                each.inbox.append(message.body)
        else:
            self.replies.append((message.properties["correlation_id"], message.body))


class Server:
    """One of them: it carries out by hand what its decisions are."""

    def __init__(self, broker: Broker, name: str, prefetch: int = 10) -> None:
        self.broker, self.name = broker, name
        warnings = RareWarnings(get_logger("qam.qam_server"), broker.clock)
        self.intake = Intake(name, broker.clock, warnings)
        self.closing = Closing(broker.clock)
        self.messages = Messages(broker.server_id, get_serializer("json"))
        self.prefetch = prefetch
        self.connected = self.consuming = self.ended = False
        self.inbox: deque[bytes] = deque()
        self._tags = count(1)
        # What was delivered and not acknowledged, by delivery tag; None for a word.
        self.unacknowledged: dict[int, Publish | None] = {}
        #: The requests that wait for a worker, and those whose method runs.
        self.waiting: list[Call] = []
        self.running: list[Call] = []
        #: The correlation ids of all methods that were begun.
        self.begun: list[str] = []

    # --- the connection -----------------------------------------------------------

    def connect(self, without_gap: bool = True) -> None:
        if not without_gap:
            self.inbox.clear()
        self.connected = True
        hello = self.intake.opened(without_gap)
        self.broker.publish(Publish(siblings_binding(self.broker.server_id, "").route, hello, {}))
        self.intake.siblings.hello_confirmed(self.intake.connection_number)

    def cut(self) -> None:
        """The connection is lost: the broker takes back what is not acknowledged."""
        self._lose_deliveries()
        self.intake.lost(self._take_back(), by_message=False)

    def kill(self) -> None:
        """The process dies."""
        self._lose_deliveries()
        self.broker.servers.remove(self)

    def _lose_deliveries(self) -> None:
        self.connected = self.consuming = False
        lost = [message for message in self.unacknowledged.values() if message is not None]
        self.broker.queue.extendleft((message, True) for message in reversed(lost))
        self.unacknowledged.clear()
        self._tags = count(1)

    def _take_back(self) -> list[Call]:
        waiting, self.waiting = self.waiting, []
        return waiting

    # --- its work -----------------------------------------------------------------

    def turn(self) -> bool:
        """Do what there is to do; return whether that was anything."""
        if not self.connected:
            return False
        active = self._hear() or self._receive()
        self._acknowledge()
        if self.intake.waits_for_acks:
            active = True
            self._carry_out(self.intake.acks_arrived())
        self._carry_out(self.intake.take_judged())
        active = self._send_words() or active
        if self.intake.siblings.inspection_is_due:
            self.inspect()
        if self.closing.begun:
            return self._close_down() or active
        return self._begin_to_consume() or active

    def _begin_to_consume(self) -> bool:
        if self.consuming or not self.intake.siblings.announced:
            return False
        if not self.intake.siblings.vouches:
            self.inspect()
        self.consuming = True
        if not self.intake.siblings.vouches:
            self.inspect()
        self.intake.siblings.tell_consuming(True)
        return True

    def inspect(self) -> None:
        others = sum(each.connected for each in self.broker.servers) - 1
        self.intake.siblings.servers_counted(others)
        self.intake.siblings.queue_inspected(self.broker.state(), own_consumers=self.consuming)

    def _hear(self) -> bool:
        if not self.inbox:
            return False
        tag = next(self._tags)
        self.unacknowledged[tag] = None
        self.intake.heard(Delivery(self.inbox.popleft(), tag))
        return True

    def _receive(self) -> bool:
        held = [message for message in self.unacknowledged.values() if message is not None]
        if not (self.consuming and self.broker.queue and len(held) < self.prefetch):
            return False
        message, redelivered = self.broker.queue.popleft()
        tag = next(self._tags)
        self.unacknowledged[tag] = message
        delivery = Delivery(message.body, tag, redelivered, message.properties)
        call = Call(delivery, self.intake.connection_number, arrived=self.broker.clock())
        self._carry_out([(self.intake.received(call), call)])
        return True

    def _acknowledge(self) -> None:
        for tag, multiple in self.intake.take_acks():
            for each in [*self.unacknowledged] if multiple else [tag]:
                if each <= tag:
                    del self.unacknowledged[each]

    def _send_words(self) -> bool:
        repeated = self.intake.take_to_repeat()
        for key, answer in repeated:
            self.broker.publish(self.messages.repeated_reply(key, answer))
        words = self.intake.siblings.take_messages()
        route = siblings_binding(self.broker.server_id, self.name).route
        for word in words:
            self.broker.publish(Publish(route, word, {}))
        return bool(repeated or words)

    def _carry_out(self, decisions: Decisions) -> None:
        for decision, call in decisions:
            if decision is Decision.RUN:
                self.waiting.append(call)
            elif decision is Decision.ANSWER:
                assert call.answer is not None
                self.broker.publish(self.messages.reply(call, call.answer))
                self.settle([call])
            else:
                assert decision is Decision.NOTHING

    def settle(self, calls: Iterable[Call]) -> None:
        """Their replies are confirmed."""
        self._carry_out(self.intake.settled(list(calls)))

    # --- what its workers do ------------------------------------------------------

    def begin(self) -> Call:
        """A worker begins with the next request that may run."""
        call = self.waiting.pop(0)
        assert not call.lost
        self.begun.append(call.delivery.correlation_id or "")
        self.running.append(call)
        return call

    def answer(self, body: bytes = b"done") -> None:
        """The method that has run longest returns; the reply arrives, and is confirmed."""
        self._reply(self.running.pop(0), body)
        self.broker.run()

    def answer_as_lost(self) -> None:
        """A worker answers the next request, which may have run elsewhere."""
        call = self.waiting.pop(0)
        assert call.lost
        self._reply(call, b"lost")
        self.broker.run()

    def _reply(self, call: Call, body: bytes) -> None:
        call.answer = Answer("client_client_routing_key", body)
        self.broker.publish(self.messages.reply(call, call.answer))
        self.settle([call])

    def pass_on(self) -> Call:
        """A worker publishes the next request anew, which may have run, and may run again."""
        call = self.waiting.pop(0)
        assert call.lost
        self.broker.publish(
            self.messages.request_anew(call, self.broker.clock(), runs=call.runs + 1)
        )
        return call

    # --- closing --------------------------------------------------------------------

    def close(self, timeout: float) -> None:
        self.closing.begin(self.broker.clock() + timeout)

    def _close_down(self) -> bool:
        step = self.closing.next_step(self.consuming, self.intake.is_idle)
        if step is CloseStep.STOP_CONSUMING:
            self.intake.siblings.tell_consuming(False)
            self.consuming = False
        elif step is CloseStep.GIVE_BACK:
            calls = self._take_back()
            self.intake.give_back(calls)
            calls += self.intake.take_held_back()
            for call in calls:
                self.broker.publish(self.messages.request_anew(call, self.broker.clock()))
            self.settle(calls)
            if not calls:
                self._end()
        elif step is CloseStep.LEAVE:
            self.intake.siblings.leave()
            self._send_words()
            self._end()
        elif step is CloseStep.END:
            self._end()
        return step is not CloseStep.WAIT

    def _end(self) -> None:
        self.ended = True
        self.kill()
