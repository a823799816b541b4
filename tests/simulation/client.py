"""A client of the story: the threads of a real proxy, and callers that wait in virtual time."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

from qam._broker.credentials import AMQPCredentials
from qam._client.consumer_thread import ConsumerThread
from qam._client.pending_call import PendingCall
from qam._client.publisher_thread import PublisherThread
from qam._client.result_list import DONE, ResultList
from qam._common.deadline import Deadline
from qam._protocol.entities import reply_routing_key
from qam.exceptions import Executed, QAMClosedException, QAMException
from tests.simulation.owner import Owner
from tests.simulation.world import SERVER_ID, World


@dataclass
class Outcome:
    """How a call went."""

    token: str
    client: str
    method: str
    made_at: float
    timeout: float | None = None
    ended_at: float | None = None
    result: Any = None
    error: BaseException | None = None
    #: Nobody waits for it any more: its process is gone.
    void: bool = False
    call: PendingCall | None = None

    @property
    def ended(self) -> bool:
        return self.ended_at is not None

    def __str__(self) -> str:
        if not self.ended:
            return "does not end"
        if self.error is None:
            return f"returns {self.result}"
        executed = getattr(self.error, "executed", "?")
        return f"raises {type(self.error).__name__}, executed {executed}"


class ModelClient:
    """A process with one proxy in it."""

    def __init__(self, world: World, name: str) -> None:
        self._world, self.name = world, name
        self.is_alive = True
        self.outcomes: list[Outcome] = []
        self._open: list[tuple[int, Outcome]] = []
        credentials, client_id = AMQPCredentials("model"), f"{name}.0"
        self.results = ResultList()
        self.publisher = PublisherThread(
            credentials, SERVER_ID, client_id, "json", results=self.results
        )
        self.consumer = ConsumerThread(
            credentials, SERVER_ID, client_id, "json", publisher=self.publisher
        )
        self.owners = {
            "receives": Owner(world, self.consumer, f"{name} receives", self._look),
            "sends": Owner(world, self.publisher, f"{name} sends", self._look),
        }
        for owner in self.owners.values():
            owner.open()

    # --- calls ----------------------------------------------------------------------------

    def call(self, token: str, method: str, seconds: float, timeout: float | None) -> None:
        """Make a call, as a thread of the application does that waits for its result."""
        outcome = Outcome(token, self.name, method, self._world.schedule.now, timeout)
        self.outcomes.append(outcome)
        deadline, slot = Deadline(timeout), self.consumer.get_free_result_list_id()
        try:
            outcome.call = call = self.publisher.begin_call(
                slot,
                method,
                [token, seconds],
                {},
                reply_routing_key(self.consumer.client_id),
                deadline,
            )
            id = f"{self.consumer.client_id}:{call.call_id}"
            self._world.note(f"calls {method} ({seconds:g} s)", self.name, token, f"as {id}")
            self.publisher.send(call, waits=True)
        except QAMException as error:
            self._end(outcome, error=error)
            return
        self._open.append((slot, outcome))
        if timeout is not None:
            self._world.schedule.after(timeout, partial(self._time_is_up, slot, outcome))
        self._look()

    def _look(self) -> None:
        """Those whose outcomes are there go on."""
        for slot, outcome in list(self._open):
            if self.results.slots[slot]["state"] == DONE:
                self._open.remove((slot, outcome))
                try:
                    self._end(outcome, self.consumer.get_result(slot))
                except Exception as error:
                    self._end(outcome, error=error)

    def _time_is_up(self, slot: int, outcome: Outcome) -> None:
        self._look()
        if (slot, outcome) not in self._open or outcome.call is None:
            return
        self._open.remove((slot, outcome))
        error = self.publisher.give_up(outcome.call)
        self.publisher.withdraw(outcome.call)
        self.consumer.free_result_item(slot)
        self._end(outcome, error=error)

    def _end(
        self, outcome: Outcome, result: Any = None, error: BaseException | None = None
    ) -> None:
        outcome.ended_at = self._world.schedule.now
        outcome.result, outcome.error = result, error
        self._world.note(str(outcome), self.name, outcome.token)

    # --- what happens to it -----------------------------------------------------------------

    def close(self) -> None:
        """The proxy is closed."""
        if not self.is_alive:
            return
        self._world.note("closes", self.name)
        self.publisher.close_calls(_closed)
        self.publisher.ask_to_stop()
        self.consumer.ask_to_stop()
        self._look()
        self._world.schedule.after(5.0, self._leave)

    def _leave(self) -> None:
        self.is_alive = False
        for owner in self.owners.values():
            owner.die()

    def kill(self) -> None:
        """Its process ends at once."""
        if self.is_alive:
            self._world.note("is killed", self.name)
            for _, outcome in self._open:
                outcome.void = True
            self._open.clear()
            self._leave()

    def stand_still(self, until: float) -> None:
        for owner in self.owners.values():
            owner.stand_still(until)

    def left_behind(self) -> Iterable[str]:
        """What it still has, in words."""
        waiting = self.publisher.queued_calls
        if waiting and not self._open:
            yield f"{waiting} calls that wait to be written"
        if self.results.open_calls > len(self._open):
            yield "calls that nobody waits for"
        if self.publisher._under_way.in_flight:
            yield "requests without a fate"


def _closed(executed: Executed) -> QAMClosedException:
    return QAMClosedException("the proxy is closed", executed=executed)
