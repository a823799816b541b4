"""Calls the methods of a QAMServer as if they were the proxy's own.

>>> from qam.qam_proxy import QAMProxy
>>> qam_proxy = QAMProxy('qamserver', hostname='localhost')     # doctest: +SKIP
>>> qam_proxy.add(2, 3)                                         # doctest: +SKIP
5
"""

import atexit
import os
import time
import uuid
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Self

from qam._broker.connect import CONNECT_TIMEOUT
from qam._broker.credentials import HEARTBEAT, AMQPCredentials
from qam._broker.messages import MAX_MESSAGE_BYTES
from qam._client.callback_items import FINISHED
from qam._client.callback_observer_thread import CallbackObserverThread
from qam._client.consumer_thread import ConsumerThread
from qam._client.execute_callback_thread import ExecuteCallbackThread
from qam._client.pending_call import PendingCall
from qam._client.publisher_thread import PublisherThread
from qam._client.remote_names import _Method, _RemoteNames
from qam._client.result_list import ResultList
from qam._common.checks import (
    check_count,
    check_entity_name,
    check_flag,
    check_queue_arguments,
    check_timeout,
    check_timeout_or_none,
)
from qam._common.deadline import NO_END, Deadline
from qam._common.doors import offer
from qam._common.fork import disown_in_child
from qam._common.logs import flush as flush_logs
from qam._common.own_locks import holds_own_lock
from qam._common.own_threads import in_own_thread, may_wait_here, waiting
from qam._protocol.entities import reply_routing_key
from qam._serialization.serializers import get_serializer
from qam.exceptions import (
    Executed,
    QAMClosedException,
    QAMException,
    QAMMethodNotFoundException,
    QAMTimeoutException,
)

__all__ = [
    "Callback",
    "CallbackObserverThread",
    "ConsumerThread",
    "ExecuteCallbackThread",
    "PublisherThread",
    "QAMException",
    "QAMMEthodNotFoundException",
    "QAMMethodNotFoundException",
    "QAMProxy",
    "QAMTimeoutException",
    "SynchronTimeout",
]

offer(
    __name__,
    ConsumerThread,
    PublisherThread,
    CallbackObserverThread,
    ExecuteCallbackThread,
    _Method,
)

#: The same exception, as the original spells it in one place.
QAMMEthodNotFoundException = QAMMethodNotFoundException

#: Seconds that closing takes at most.
_CLOSE_TIMEOUT = 5.0
#: Seconds without a result after which the publisher is told to look for the call's confirm.
_SOON = 0.02

# Lets other threads run, without a wait; time.sleep waits, even for 0 seconds.
_let_others_run: Callable[[], Any] = getattr(os, "sched_yield", lambda: time.sleep(0))


class QAMProxy(_RemoteNames):
    """Sends method calls to a QAMServer and receives their results.

    Every public name that is not an attribute of the proxy is a remote method:
    ``proxy.add(2, 3)``, ``proxy.instance.method(2)``.  A call waits for its result; calls by
    :meth:`callback` do not.  Threads may share a proxy.  Use it in a ``with`` statement, or
    :meth:`close` it.

    The constructor waits until both connections are open, *connect_timeout* seconds at most.

    :param server_id: the id of the QAMServer.
    :param hostname: the host of the broker; or a URL, ``amqp://…``, ``amqps://…``, or
        ``memory://name`` for a broker inside this process; or a list of names or URLs,
        the nodes of a cluster.
    :param port: the broker's port.
    :param username: the user that connects to the broker.
    :param password: the user's password.
    :param vhost: the broker's virtual host.
    :param client_id: a label for this client, a part of the name of its reply queue; by
        default a random one.  Several clients may have the same.
    :param serializer: ``'pickle'``, ``'json'`` or ``'msgpack'``, as the server is configured.
    :param ssl: True for TLS, verified against the system's authorities and the host name;
        or a dict or :class:`ssl.SSLContext`, see
        :class:`~qam.amqp_credentials.AMQPCredentials`.
    :param timeout: seconds that a call may take, unless :meth:`set_timeout` sets another one.
        With None, the default, a call waits without limit, also for a server that is known
        but not running.
    :param pickle_protocol: the pickle protocol of the requests; 2 for a server on Python 2.
    :param connect_timeout: seconds that connecting to the broker may take.
    :param trusted: classes, or names of modules and classes, whose instances messages may
        create in this process, beside those of :func:`qam.trust`.
    :param max_message_bytes: the size of the largest request that is sent and of the
        largest reply that is received; a call with a larger one raises.
    :param max_queued: how many calls may wait to be sent, as while the broker is away; None
        for any number.  Any further call waits for room, up to its timeout; the call of a
        callback fails instead.
    :param queue_arguments: the arguments of the reply queue, such as
        ``{'x-queue-type': 'quorum'}`` on a cluster.
    :param persistent: True: requests and replies survive a restart of the broker and the
        loss of a connection.  False: calls are faster, and requests and replies are kept
        nowhere; if a connection is lost, the calls that were sent end with a
        :class:`QAMConnectionException`.
    :param heartbeat: whole seconds between heartbeats; a broker that is silent for two of
        them counts as lost.
    :raises QAMConnectionException: the broker can't be reached, or refuses the connection.
    :raises TypeError, ValueError: an argument is wrong; the error names it.
    """

    def __init__(
        self,
        server_id: str,
        hostname: str | Sequence[str] = "localhost",
        port: int = 5672,
        username: str = "guest",
        password: str = "guest",
        vhost: str = "/",
        client_id: str | None = None,
        serializer: str = "pickle",
        ssl: Any = False,
        *,
        timeout: float | None = None,
        pickle_protocol: int | None = None,
        connect_timeout: float = CONNECT_TIMEOUT,
        trusted: Iterable[Any] = (),
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        max_queued: int | None = None,
        queue_arguments: Mapping[str, Any] | None = None,
        persistent: bool = True,
        heartbeat: int = HEARTBEAT,
    ) -> None:
        check_entity_name(server_id, "server_id")
        if client_id is not None:
            check_entity_name(client_id, "client_id")
        codec = get_serializer(serializer, pickle_protocol, trusted)
        #: Where the broker is.
        self.amqp_credentials = AMQPCredentials(
            hostname, port, username, password, vhost, ssl, heartbeat
        ).resolved()
        #: The label of this client.
        self.client_id = client_id or uuid.uuid4().hex
        #: The name of the serializer.
        self.serializer = serializer
        self._server_id = server_id
        self._timeout = check_timeout_or_none(timeout)
        self._closing = self._finished = False
        # Unlike the label it is unique, so no proxy gets the replies of another.
        own_id = f"{self.client_id}.{uuid.uuid4().hex}"
        self._results = ResultList()
        opened_by = Deadline(check_timeout(connect_timeout, "connect_timeout"))
        check_count(max_message_bytes, "max_message_bytes")
        check_flag(persistent, "persistent")
        #: Sends the calls.
        self.publisher_thread = PublisherThread(
            self.amqp_credentials,
            server_id,
            own_id,
            codec,
            results=self._results,
            max_queued=None if max_queued is None else check_count(max_queued, "max_queued"),
            connect_timeout=connect_timeout,
            max_message_bytes=max_message_bytes,
            persistent=persistent,
        )
        #: Receives the results.
        self.consumer_thread = ConsumerThread(
            self.amqp_credentials,
            server_id,
            own_id,
            codec,
            publisher=self.publisher_thread,
            queue_arguments=check_queue_arguments(queue_arguments),
            connect_timeout=connect_timeout,
            max_message_bytes=max_message_bytes,
            persistent=persistent,
        )
        #: Watches over the callbacks.
        self.callback_observer_thread = CallbackObserverThread(self)
        self._start(opened_by)

    def _start(self, opened_by: Deadline) -> None:
        owners = (self.consumer_thread, self.publisher_thread)
        observer = self.callback_observer_thread
        try:
            for owner in owners:  # one after the other: the first reason is the one that is told
                owner.begin()
                owner.wait_until_open(opened_by)
            observer.start()
            # If an idle proxy is dropped, its threads end.
            self._finalizer = weakref.finalize(self, _stop, *owners, observer)
            self._finalizer.atexit = False
        except BaseException:
            _stop(observer, *owners)
            end = Deadline(_CLOSE_TIMEOUT)
            for owner in owners:
                owner.join_until(end)
            raise
        _open_proxies.add(self)
        disown_in_child(self)

    # --- calls ------------------------------------------------------------------

    def _send(self, method_name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return self._request(
            self.consumer_thread.client_id, method_name, args, kwargs, self._timeout
        )

    def _request(
        self,
        client_id: str,
        method_name: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        timeout: float | None,
    ) -> Any:
        """Call a remote method, and wait for its result."""
        if not may_wait_here() or holds_own_lock():
            # The call might wait for its own thread.  A finalizer may run in any thread, in the
            # middle of any code.
            raise QAMException(
                f"{method_name}() can't wait for its result here: it was called in a thread of the "
                "library, or by a finalizer or signal handler inside another call; use a callback",
                executed="no",
            )
        call = self._make_call(client_id, method_name, args, kwargs, Deadline(timeout))
        try:
            try:
                message = self._outcome_of(call)
            except BaseException as error:
                self._abandon(call)
                self.publisher_thread.note_end(call, error)
                raise
        except BaseException:
            self._abandon(call)  # again: a signal may have interrupted it
            raise
        return self.consumer_thread.read_outcome(message, call)

    def _outcome_of(self, call: PendingCall) -> Any:
        """Send a call, wait for its outcome, and return that."""
        self._results.reserve(call=call)
        self._results.begin(call)  # from here on a reply, a thread of the proxy or a close ends it
        self.publisher_thread.send(call, waits=True)
        if not self._wait(call):
            raise self.publisher_thread.give_up(call)
        return self._results.end(call)

    def _wait(self, call: PendingCall) -> bool:
        """Wait for the outcome of a call; return False if it did not come until its deadline."""
        soon = Deadline(_SOON)
        with waiting():
            if soon.at < call.deadline.at and self._results.wait(call.slot_id, soon):
                return True
            self.publisher_thread.look_again()  # the broker may have returned or refused it
            return self._results.wait(call.slot_id, call.deadline)

    def _abandon(self, call: PendingCall) -> None:
        """Leave nothing of a call that failed; to do that again does nothing."""
        self.publisher_thread.abandon(call)
        self._results.end(call)

    def _make_call(
        self,
        client_id: str,
        method_name: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        deadline: Deadline,
    ) -> PendingCall:
        routing_key = reply_routing_key(client_id)
        return self.publisher_thread.make_call(method_name, args, kwargs, routing_key, deadline)

    def set_timeout(self, timeout: float | None) -> "SynchronTimeout":
        """Return an object whose calls wait for *timeout* seconds at most; does not wait.

        None is for calls without a timeout, also where the proxy has one.

        ``proxy.set_timeout(10).add(2, 3)`` raises a :class:`QAMTimeoutException` if there is no
        result after ten seconds.

        :raises TypeError, ValueError: *timeout* is not a positive number.
        """
        return SynchronTimeout(self, self.consumer_thread.client_id, timeout)

    # --- callbacks --------------------------------------------------------------

    def callback(
        self,
        callback_method: Callable[[Any], Any] | None,
        exception_method: Callable[[Exception], Any] | None = None,
    ) -> "Callback":
        """Return an object whose calls do not wait; *callback_method* gets the result.

        ``uid = proxy.callback(success, error).add(2, 4)`` returns at once.  The functions
        are called in another thread, and may call the proxy.

        :param callback_method: called with the result; None to ignore it.
        :param exception_method: called with the exception if the call fails; if it is None,
            the failure is logged.
        :raises TypeError: one of them is not callable.
        """
        if callback_method is None:
            callback_method = _ignore
        if not callable(callback_method):
            raise TypeError(f"callback_method must be callable or None, not {callback_method!r}")
        if exception_method is not None and not callable(exception_method):
            raise TypeError(f"exception_method must be callable or None, not {exception_method!r}")
        functions = callback_method, exception_method
        return Callback(self, None, self.consumer_thread.client_id, functions=functions)

    def get_callback_state(self, uid: str) -> int:
        """Return the state of a callback: 0 waiting, 1 being executed, 2 finished.

        An unknown uid counts as finished.  Does not wait, but lets other threads run, so a
        loop may call it.

        :param uid: the uid that the call of a callback has returned.
        :returns: 0, 1 or 2.
        :raises TypeError: *uid* is a :class:`Callback`, of which no method was called.
        """
        _let_others_run()
        item = self.callback_observer_thread.callback_uid_dict.get(uid)
        if item is not None:
            return int(item["state"])
        if isinstance(uid, (Callback, _Method)):
            raise TypeError(
                f"uid: no call was made yet by {uid!r}; "
                "as in uid = proxy.callback(success).add(2, 4)"
            )
        return FINISHED

    def get_num_waiting_callbacks(self) -> int:
        """Return how many callbacks are not finished yet; does not wait."""
        _let_others_run()
        return len(self.callback_observer_thread.callback_uid_dict)

    # --- closing ----------------------------------------------------------------

    @property
    def closed(self) -> bool:
        """True once :meth:`close` was called."""
        return self._closing

    def close(self) -> None:
        """Stop the threads and close the connections; does nothing once that is done.

        Calls and callbacks that still wait end with a :class:`QAMClosedException`.  Waits for
        the threads, five seconds at most, even if the broker does not respond.  Each of several
        threads may call it.  If Ctrl-C interrupts it, a second call does the rest.
        """
        if not self._finished:
            self._begin_to_close()
            self._finish_closing(Deadline(_CLOSE_TIMEOUT))

    def _begin_to_close(self) -> None:
        """End the calls, and ask the owners of connections to end; wait for nothing."""
        self._closing = True
        try:
            self.publisher_thread.close_calls(self._closed)
        finally:
            _stop(self.publisher_thread, self.consumer_thread)

    def _finish_closing(self, deadline: Deadline) -> None:
        for thread in (self.publisher_thread, self.consumer_thread):
            thread.join_until(deadline)
        # Last: the other threads may have made callbacks ready until they ended.
        _stop(self.callback_observer_thread)
        self.callback_observer_thread.join_until(deadline)
        # It keeps the threads alive, and these keep the proxy alive.
        self._finalizer.detach()
        if not in_own_thread():  # else a callback closes it, whose thread has not ended
            _open_proxies.discard(self)
            self._finished = True
        flush_logs()

    def _after_fork(self) -> None:
        """In a forked child, which does not have the threads of the proxy: be closed."""
        self._closing = self._finished = True
        _open_proxies.discard(self)

    def _closed(self, executed: Executed) -> QAMClosedException:
        return QAMClosedException(
            f"the proxy of {self._server_id!r} is closed; make a new one", executed=executed
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        if "callback_observer_thread" not in vars(self):
            return "<QAMProxy that is not made yet>"
        state = "closed" if self._closing else "open"
        what = f"{state} QAMProxy of {self._server_id!r} at {self.amqp_credentials}"
        return f"<{what}, as {self.client_id!r}{'' if self._closing else self._figures()}>"

    def _figures(self) -> str:
        publisher = self.publisher_thread
        connected = publisher.is_connected and self.consumer_thread.is_connected
        calls = f"{self._results.open_calls} open, {publisher.queued_calls} queued"
        return f", {'connected' if connected else 'not connected'}; calls: {calls}"


class SynchronTimeout(_RemoteNames):
    """Calls the methods of a proxy, each with a timeout.

    ``synchron_timeout.add(2, 3)`` or ``synchron_timeout('add', 2, 3)``.

    :param parent: the :class:`QAMProxy`.
    :param client_id: names the routing key by which replies come back.
    :param timeout: seconds that a call may take; None for any time.
    :raises TypeError, ValueError: *timeout* is not a positive number.
    """

    def __init__(self, parent: QAMProxy, client_id: str, timeout: float | None) -> None:
        self._parent = parent
        self._client_id = client_id
        self._timeout = check_timeout_or_none(timeout)

    def set_timeout(self, timeout: float | None) -> "SynchronTimeout":
        """Return such an object with another timeout; see :meth:`QAMProxy.set_timeout`."""
        return SynchronTimeout(self._parent, self._client_id, timeout)

    def callback(
        self,
        callback_method: Callable[[Any], Any] | None,
        exception_method: Callable[[Exception], Any] | None = None,
    ) -> "Callback":
        """Return an object whose calls do not wait, and have this timeout.

        See :meth:`QAMProxy.callback`.

        :raises TypeError: one of the functions is not callable.
        """
        callback = self._parent.callback(callback_method, exception_method)
        return callback.set_timeout(self._timeout)

    def _send(self, method_name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return self._parent._request(self._client_id, method_name, args, kwargs, self._timeout)

    def __call__(self, method_name: str, /, *args: Any, **kwargs: Any) -> Any:
        """Call the remote method *method_name*, and wait for its result."""
        return self[method_name](*args, **kwargs)

    def __repr__(self) -> str:
        seconds = "no timeout" if self._timeout is None else f"timeout of {self._timeout:g} seconds"
        return f"<{seconds} on {self._parent!r}>"


class Callback(_RemoteNames):
    """Calls the methods of a proxy without a wait; its functions get the outcomes.

    ``callback.add(2, 3)`` or ``callback('add', 2, 3)`` returns a uid, a str, for
    :meth:`QAMProxy.get_callback_state`.  Each use makes another call.

    :param parent: the :class:`QAMProxy`.
    :param id: the slot that was reserved for the first call; None to reserve one then.
    :param client_id: names the routing key by which the reply comes back.
    :param functions: the two functions; by default those of the slot *id*.
    """

    def __init__(
        self,
        parent: QAMProxy,
        id: int | None,
        client_id: str,
        *,
        functions: tuple[Any, Any] = (None, None),
    ) -> None:
        self._parent = parent
        self._client_id = client_id
        self._timeout = parent._timeout
        self._functions = functions
        # The reserved slot, which is freed if no call ever uses it.
        self._reserved: weakref.finalize[..., Any] | None = None
        if id is not None:
            slot = parent._results.slots[id]
            self._functions = slot["callback_method"], slot["exception_method"]
            self._reserved = weakref.finalize(self, parent.consumer_thread.free_result_item, id)
            self._reserved.atexit = False

    def set_timeout(self, timeout: float | None) -> Self:
        """Let the calls take *timeout* seconds at most, or any time; return this Callback.

        After that time the error function gets a :class:`QAMTimeoutException`.

        :raises TypeError, ValueError: *timeout* is not a positive number.
        """
        self._timeout = check_timeout_or_none(timeout)
        return self

    def _send(self, method_name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        deadline = NO_END if self._timeout is None else Deadline(self._timeout)
        call = self._parent._make_call(self._client_id, method_name, args, kwargs, deadline)
        try:
            try:
                self._begin(call)
            except BaseException:
                self._abandon(call)
                raise
        except BaseException:
            self._abandon(call)  # again: a signal may have interrupted it
            raise
        return call.uid

    def _begin(self, call: PendingCall) -> None:
        """Send a call, whose outcome one of the functions gets."""
        parent, observer = self._parent, self._parent.callback_observer_thread
        if self._reserved is not None:
            self._reserved()  # frees it, for the next line to take
        parent._results.reserve(*self._functions, call)
        observer.add_item(call.slot_id, call.deadline, call)
        parent._results.begin(call)  # from here on it gets an outcome
        parent.publisher_thread.send(call)
        if call.deadline is not NO_END:
            observer.watch(call.uid, call)

    def _abandon(self, call: PendingCall) -> None:
        """Leave nothing of a call that failed; to do that again does nothing."""
        parent = self._parent
        parent.callback_observer_thread.give_up(call)
        parent.publisher_thread.abandon(call)
        parent._results.take_back(call)

    def __call__(self, method_name: str, /, *args: Any, **kwargs: Any) -> str:
        """Call the remote method *method_name*; return the uid of the call, without a wait."""
        uid: str = self[method_name](*args, **kwargs)
        return uid

    def __repr__(self) -> str:
        return f"<callback {self._functions[0]!r} on {self._parent!r}>"


def _ignore(result: Any) -> None:
    """Stand for the success function of a callback that has none."""


def _stop(
    *threads: PublisherThread | ConsumerThread | CallbackObserverThread,
) -> None:
    """Ask *threads* to end; waits for nothing, since a finalizer calls it too."""
    for thread in threads:
        thread.ask_to_stop()


_open_proxies: weakref.WeakSet[QAMProxy] = weakref.WeakSet()


def _close_open_proxies() -> None:
    """At the end of the interpreter: let no thread of a proxy be cut off in the middle."""
    proxies = list(_open_proxies)
    for proxy in proxies:
        proxy._begin_to_close()
    deadline = Deadline(_CLOSE_TIMEOUT)  # one for all, so a silent broker costs it only once
    for proxy in proxies:
        proxy._finish_closing(deadline)


atexit.register(_close_open_proxies)
