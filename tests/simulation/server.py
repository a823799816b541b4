"""A server of the story: the threads of a real one, and workers that take virtual time."""

from collections import deque
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from qam._broker.credentials import AMQPCredentials
from qam._common.deadline import Deadline
from qam._common.job_queue import JobQueue
from qam._common.logs import get_logger
from qam._common.rare_warnings import RareWarnings
from qam._serialization.serializers import get_serializer
from qam._server.call import Answer, Call
from qam._server.execute_method_thread import ExecuteMethodThread
from qam._server.mailboxes import ResultQueue, SettledCalls
from qam._server.messages import Message, Messages
from qam._server.method_registry import MethodRegistry
from qam._server.prefetch import Prefetch
from qam._server.publisher_thread import ReplyPublisherThread
from qam._server.request_consumer_thread import CLOSE_GRACE, RequestConsumerThread
from qam._server.settings import ServerSettings
from tests.simulation.owner import Owner
from tests.simulation.world import SERVER_ID, World

#: Seconds for which a server that closes waits for its publisher, and then for its workers.
_PUBLISHER_ENDS_WITHIN, _WORKERS_END_WITHIN = 5.0, 1.0


class Workers:
    """Stands for the pool of workers: as many methods run as there are workers, in virtual time.

    A method does all that it does when it begins, and its reply is sent when it ends.
    """

    def __init__(self, world: World, name: str, number: int) -> None:
        self._world, self._name, self._number = world, name, number
        self.publisher: ReplyPublisherThread | None = None
        self.thread: ExecuteMethodThread | None = None
        self._waiting: deque[tuple[float, Call]] = deque()
        self.busy = 0
        self.is_dead = False
        self._stands_until = 0.0
        # What the method that begins at this moment is called with.
        self._began: tuple[str, float] | None = None
        self._reply: Message | None = None

    # --- for the thread that receives the requests ------------------------------------

    def put(self, calls: Sequence[Call]) -> None:
        for call in calls:
            self._waiting.append((self._world.schedule.now, call))
            self._world.schedule.after(self._world.broker.latency() / 4, self._begin)

    def cancel(self) -> None:
        """There are no coroutines."""

    def take_back(self) -> list[Call]:
        calls = [call for _, call in self._waiting]
        self._waiting.clear()
        return calls

    def waiting_since(self) -> float | None:
        return self._waiting[0][0] if len(self._waiting) > self._number - self.busy else None

    @property
    def has_room(self) -> bool:
        return not self._waiting and self.busy < self._number

    #: How many wait in calls of their own.
    nested = prefetch = 0

    def dismisses(self, worker: ExecuteMethodThread) -> bool:
        return False

    # --- for the worker ----------------------------------------------------------------

    def add_reply_to_send(self, reply: Message) -> None:
        self._reply = reply

    send_lone = add_reply_to_send

    def method(self, token: str, seconds: float) -> str:
        """What clients call."""
        self._began = token, seconds
        self._world.note("begins", self._name, token)
        return token

    # --- time passes ----------------------------------------------------------------------

    def stand_still(self, until: float) -> None:
        self._stands_until = until

    def _when_it_goes_on(self, act: Any) -> None:
        now = self._world.schedule.now
        if now < self._stands_until:
            self._world.schedule.at(self._stands_until, act)
        elif not self.is_dead:
            act()

    def _begin(self) -> None:
        if self._world.schedule.now < self._stands_until:
            self._world.schedule.at(self._stands_until, self._begin)
        elif not self.is_dead and self._waiting and self.busy < self._number:
            assert self.thread is not None
            self.busy += 1
            _, call = self._waiting.popleft()
            self._began = self._reply = None
            self.thread._work_on(call)
            if self._began is None:
                self._end(call, self._reply, None, call.answer)
            else:
                act = partial(self._end, call, self._reply, self._began, call.answer)
                call.answer = None  # until the method ends
                self._world.schedule.after(self._began[1], act)

    def _end(
        self,
        call: Call,
        reply: Message | None,
        began: tuple[str, float] | None,
        answer: Answer | None,
    ) -> None:
        if self._world.schedule.now < self._stands_until:
            act = partial(self._end, call, reply, began, answer)
            self._world.schedule.at(self._stands_until, act)
            return
        if self.is_dead:
            return
        self.busy -= 1
        call.answer = answer
        if began is not None:
            self._world.note("ends", self._name, began[0])
            call.seconds = began[1]
        if reply is not None:
            assert self.publisher is not None
            self.publisher.add_reply_to_send(reply)
        self._begin()


class ModelServer:
    """A process with one server in it.

    :param workers: how many methods run at once.
    :param prefetch: how many requests it holds; None to have that follow the work.
    :param arguments: what the request queue is declared with.
    """

    def __init__(
        self,
        world: World,
        name: str,
        workers: int,
        prefetch: int | None = None,
        arguments: dict[str, Any] | None = None,
    ) -> None:
        self._world, self.name = world, name
        self.is_alive, self.closes = True, False
        self._close_within = 0.0
        settings = ServerSettings(
            SERVER_ID, get_serializer("json"), dict(arguments or {}), max_workers=workers
        )
        self.results, self.settled = ResultQueue(), SettledCalls()
        messages, credentials = Messages(SERVER_ID, settings.serializer), AMQPCredentials("model")
        self.workers = Workers(world, name, workers)
        self.publisher = ReplyPublisherThread(
            credentials, settings, self.results, self.settled, self._publisher_ended
        )
        pool: Any = self.workers
        self.consumer = RequestConsumerThread(
            credentials,
            settings,
            Prefetch(workers, prefetch),
            messages,
            pool,
            self.results,
            self.settled,
            self._consumer_ended,
        )
        registry = MethodRegistry()
        registry.add_function(self.workers.method, "work")
        registry.add_function(self.workers.method, "again", idempotent=True)
        warnings = RareWarnings(get_logger("qam.qam_server"))
        calls: JobQueue[Call] = JobQueue()
        self.workers.publisher = self.publisher
        self.workers.thread = ExecuteMethodThread(
            settings, calls, registry, messages, pool, self.settled, warnings, pool
        )
        self.owners = {
            "receives": Owner(world, self.consumer, f"{name} receives", self._after_turn),
            "sends": Owner(world, self.publisher, f"{name} sends", self._after_turn),
        }
        # The one that sends connects first.
        self._starts_to_receive = False
        self.owners["sends"].open()

    @property
    def intake(self) -> Any:
        return self.consumer._intake

    def _after_turn(self) -> None:
        if not self._starts_to_receive and self.publisher.is_connected:
            self._starts_to_receive = True
            self.owners["receives"].open()

    # --- what happens to it --------------------------------------------------------------

    def close(self, timeout: float) -> None:
        """Close it, as when another version is deployed; then its process ends."""
        if self.closes or not self.is_alive:
            return
        self.closes = True
        self._world.note(f"closes within {timeout:g} s", self.name)
        self.consumer.begin_to_close(Deadline(timeout))
        if not self._starts_to_receive:
            self.kill("ends")
        self._world.schedule.after(timeout + CLOSE_GRACE, partial(self.kill, "ends"))

    def kill(self, how: str = "is killed") -> None:
        """Its process ends at once."""
        if self.is_alive:
            self.is_alive = False
            self.workers.is_dead = True
            self._world.note(how, self.name)
            for owner in self.owners.values():
                owner.die()

    def stand_still(self, until: float) -> None:
        self.workers.stand_still(until)
        for owner in self.owners.values():
            owner.stand_still(until)

    def _consumer_ended(self, error: BaseException | None) -> None:
        self.publisher.ask_to_stop()
        after = self._world.schedule.after
        after(_PUBLISHER_ENDS_WITHIN, partial(self.kill, "ends"))
        if self.owners["sends"].has_ended:
            self._publisher_ended(error)

    def _publisher_ended(self, error: BaseException | None) -> None:
        if self.workers.busy:
            self._world.schedule.after(_WORKERS_END_WITHIN, partial(self.kill, "ends"))
        else:
            self._world.schedule.after(0.0, partial(self.kill, "ends"))

    # --- what is left of it -----------------------------------------------------------------

    def left_behind(self) -> Iterable[str]:
        """What it still has that it should have given away, in words."""
        intake = self.intake
        record, held_back = intake._record, intake._held_back
        if record.running:
            yield f"{len(record.running)} requests that run"
        if len(intake._deliveries):
            yield "open deliveries"
        if held_back._held or held_back._lost:
            yield "requests that are held back"
        if len(list(intake.siblings._questions)):
            yield "open questions"
        if len(self.results) or len(self.publisher._later):
            yield "messages that wait to be sent"
        if self.publisher._under_way.in_flight:
            yield "messages without a fate"
