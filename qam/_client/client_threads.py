"""The threads of a proxy, from their start to their end."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from qam._broker.connect import CONNECT_TIMEOUT
from qam._broker.credentials import AMQPCredentials
from qam._broker.messages import MAX_MESSAGE_BYTES
from qam._client.callback_observer_thread import CallbackObserverThread
from qam._client.consumer_thread import ConsumerThread
from qam._client.execute_callback_thread import Parent
from qam._client.pending_call import PendingCall
from qam._client.publisher_thread import PublisherThread
from qam._client.result_list import ResultList
from qam._common.deadline import NO_END, Deadline
from qam._serialization.serializers import Serializer


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """The arguments of one proxy that its threads use."""

    #: Where the broker is.
    credentials: AMQPCredentials
    #: The server that is called.
    server_id: str
    #: The label of the client.
    label: str
    #: How requests are encoded.
    serializer: Serializer
    #: How many calls may wait to be written; None for any number.
    max_queued: int | None = None
    #: Seconds that one attempt to connect may take.
    connect_timeout: float = CONNECT_TIMEOUT
    #: Seconds in which the first attempts are repeated if nobody can be reached.
    wait_for_broker: float = 0.0
    #: The size of the largest request and of the largest reply, in bytes.
    max_message_bytes: int = MAX_MESSAGE_BYTES
    #: The arguments of the reply queue.
    queue_arguments: Mapping[str, Any] = field(default_factory=dict)
    #: Whether the broker keeps requests and replies.
    persistent: bool = True
    #: As whom the proxy says it is connected; None if it does not say.
    user: str | None = None


class ClientThreads:
    """The three threads of a proxy, and their result list: made, started and ended together.

    :param parent: the proxy.
    :param settings: the arguments of the proxy.
    """

    def __init__(self, parent: Parent, settings: ClientSettings) -> None:
        # Unlike the label it is unique, so no proxy gets the replies of another.
        own_id = f"{settings.label}.{uuid.uuid4().hex}"
        self.results = ResultList()
        self.publisher = PublisherThread(
            settings.credentials,
            settings.server_id,
            own_id,
            settings.serializer,
            results=self.results,
            max_queued=settings.max_queued,
            connect_timeout=settings.connect_timeout,
            wait_for_broker=settings.wait_for_broker,
            max_message_bytes=settings.max_message_bytes,
            persistent=settings.persistent,
            user=settings.user,
        )
        self.consumer = ConsumerThread(
            settings.credentials,
            settings.server_id,
            own_id,
            settings.serializer,
            publisher=self.publisher,
            queue_arguments=settings.queue_arguments,
            connect_timeout=settings.connect_timeout,
            wait_for_broker=settings.wait_for_broker,
            max_message_bytes=settings.max_message_bytes,
            persistent=settings.persistent,
        )
        self.observer = CallbackObserverThread(
            parent, publisher=self.publisher, consumer=self.consumer
        )

    @property
    def have_begun(self) -> bool:
        """True once they were started."""
        return self.observer.ident is not None

    @property
    def have_failed(self) -> bool:
        """True if a connection could not be opened, so that its thread takes no calls any more."""
        alive = self.consumer.is_alive() and self.publisher.is_alive()
        return self.have_begun and (self.results.is_closed or not alive)

    @property
    def are_usable(self) -> bool:
        """True while calls of a proxy that connects late need no new threads."""
        return self.have_begun and not self.have_failed

    @property
    def is_here(self) -> bool:
        """True if the calling thread owns one of the connections, or is in the middle of a call."""
        return self.consumer.is_here or self.publisher.is_here

    @property
    def are_connected(self) -> bool:
        """Whether both connections are open at this moment."""
        return self.publisher.is_connected and self.consumer.is_connected

    def open(self) -> None:
        """Start the threads; wait until both connections are open.

        :raises QAMConnectionException: one can't be opened; then all threads have ended.
        """
        opened_by = Deadline(self.consumer.opening_time)
        # One after the other: the first reason is the one that is told.
        for owner in (self.consumer, self.publisher):
            owner.begin()
            owner.wait_until_open(opened_by)
        self.observer.start()

    def begin(self) -> None:
        """Start the threads; requests wait in the queue until both connections are open."""
        self.publisher.hold_requests()
        self.consumer.begin()
        self.publisher.begin()
        self.observer.start()

    def begin_call(self, call: PendingCall) -> None:
        """Send a call that has a slot, and for whose outcome no caller waits."""
        self.results.begin(call)  # from here on it gets an outcome
        self.publisher.send(call)
        if call.deadline is not NO_END:
            self.observer.watch(call)

    def abandon(self, call: PendingCall) -> None:
        """Leave nothing of such a call, which failed; to do that again does nothing."""
        self.publisher.abandon(call)
        self.results.take_back(call)

    def ask_to_stop(self) -> None:
        """Ask the threads to end; waits for nothing, since a finalizer calls it too."""
        for thread in (self.observer, self.consumer, self.publisher):
            thread.ask_to_stop()

    def ask_owners_to_stop(self) -> None:
        """Ask the threads that own connections to end."""
        self.publisher.ask_to_stop()
        self.consumer.ask_to_stop()

    def join_until(self, deadline: Deadline) -> None:
        """Wait for the end of the owners, then of the observer and the callbacks."""
        for owner in (self.publisher, self.consumer):
            owner.join_until(deadline)
        # Last: the other threads may have made callbacks ready until they ended.
        self.observer.ask_to_stop()
        self.observer.join_until(deadline)
