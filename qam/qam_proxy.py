"""Calls the methods of a QAMServer as if they were the proxy's own.

>>> from qam.qam_proxy import QAMProxy
>>> qam_proxy = QAMProxy('qamserver', hostname='localhost')     # doctest: +SKIP
>>> qam_proxy.add(2, 3)                                         # doctest: +SKIP
5
"""

import atexit
import uuid
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Self

from qam._broker.connect import CONNECT_TIMEOUT
from qam._broker.credentials import HEARTBEAT, AMQPCredentials, credentials_of
from qam._broker.endpoint import common_user
from qam._broker.messages import MAX_MESSAGE_BYTES
from qam._broker.tls import TLSOption
from qam._client.call_futures import submit
from qam._client.call_options import CallOptions, Metadata
from qam._client.callback_items import FINISHED
from qam._client.callback_observer_thread import CallbackObserverThread
from qam._client.client_threads import ClientSettings, ClientThreads
from qam._client.consumer_thread import ConsumerThread
from qam._client.execute_callback_thread import ExecuteCallbackThread
from qam._client.pending_call import PendingCall
from qam._client.proxy_threads import ProxyThreads
from qam._client.publisher_thread import PublisherThread
from qam._client.remote_names import _Method, _RemoteNames
from qam._client.result_list import ResultList
from qam._client.waited_calls import call_and_wait
from qam._common.checks import (
    check_count,
    check_entity_name,
    check_flag,
    check_queue_arguments,
    check_timeout,
    check_wait,
)
from qam._common.deadline import Deadline
from qam._common.doors import offer
from qam._common.fork import disown_in_child
from qam._common.logs import FLUSH_TIMEOUT
from qam._common.logs import flush as flush_logs
from qam._common.own_threads import in_own_thread
from qam._common.turns import let_others_run
from qam._protocol.entities import NO_REPLY, reply_routing_key
from qam._serialization.serializers import get_serializer
from qam.exceptions import (
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

#: Seconds that closing takes at most: for the threads, and the rest for the log.
_CLOSE_TIMEOUT = 5.0 - FLUSH_TIMEOUT


def _user_of(credentials: AMQPCredentials) -> str:
    user = common_user(credentials.endpoints())
    if user is None:
        raise ValueError("identify needs the same user at all hosts")
    return user


class QAMProxy(_RemoteNames):
    """Sends method calls to a QAMServer and receives their results.

    Every public name that is not an attribute of the proxy is a remote method:
    ``proxy.add(2, 3)``, ``proxy.instance.method(2)``.  A call waits for its result; calls by
    :meth:`callback` do not.  Threads may share a proxy.  Use it in a ``with`` statement, or
    :meth:`close` it.

    The constructor waits until both connections are open, *connect_timeout* seconds at most,
    and *wait_for_broker* seconds in addition.

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
        :class:`~qam.exceptions.QAMConnectionException`.
    :param heartbeat: whole seconds between heartbeats; a broker that is silent for two of
        them counts as lost.
    :param credentials: where the broker is, instead of *hostname*, *port*, *username*,
        *password*, *vhost*, *ssl* and *heartbeat*.
    :param connect: False to connect with the first call, which waits for that within its own
        timeout.  The constructor then waits for nothing, and starts no thread.  In a forked
        child such a proxy begins anew, so it may be made before a server forks its workers.
    :param wait_for_broker: seconds for which connecting is tried again where nobody can be
        reached, as while the broker starts.  A wrong password or vhost is told at once.
    :param wait_for_server: seconds for which a call waits for a server that never was there.
        Otherwise it ends at once with a :class:`~qam.exceptions.QAMServerNotFoundException`.
    :param metadata: texts by name that travel with each request, 8 KiB at most in all; or a
        function that returns them, which is called for each call, in its thread.  A server of
        0.2.x ignores them.
    :param identify: True to say in each request as whom this proxy is connected.  RabbitMQ
        verifies it, and methods read it in :attr:`qam.CurrentCall.user`.
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
        ssl: TLSOption = False,
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
        credentials: AMQPCredentials | None = None,
        connect: bool = True,
        wait_for_broker: float = 0.0,
        wait_for_server: float = 0.0,
        metadata: Metadata | None = None,
        identify: bool = False,
    ) -> None:
        check_entity_name(server_id, "server_id")
        if client_id is not None:
            check_entity_name(client_id, "client_id")
        #: Where the broker is.
        self.amqp_credentials = credentials_of(
            credentials,
            AMQPCredentials(hostname, port, username, password, vhost, ssl, heartbeat),
        )
        #: The label of this client.
        self.client_id = client_id or uuid.uuid4().hex
        #: The name of the serializer.
        self.serializer = serializer
        self._server_id = server_id
        self._options = CallOptions().changed(
            timeout=timeout, metadata=metadata, wait_for_server=wait_for_server
        )
        settings = ClientSettings(
            self.amqp_credentials,
            server_id,
            self.client_id,
            get_serializer(serializer, pickle_protocol, trusted),
            max_queued=None if max_queued is None else check_count(max_queued, "max_queued"),
            connect_timeout=check_timeout(connect_timeout, "connect_timeout"),
            wait_for_broker=check_wait(wait_for_broker, "wait_for_broker"),
            max_message_bytes=check_count(max_message_bytes, "max_message_bytes"),
            queue_arguments=check_queue_arguments(queue_arguments),
            persistent=check_flag(persistent, "persistent"),
            user=_user_of(self.amqp_credentials) if check_flag(identify, "identify") else None,
        )
        self._finished = False
        late = not check_flag(connect, "connect")
        self._threads = ProxyThreads(self, settings, late=late, close_timeout=_CLOSE_TIMEOUT)
        if not late:
            self._threads.open()
        _open_proxies.add(self)
        disown_in_child(self)

    # --- its threads --------------------------------------------------------------

    @property
    def publisher_thread(self) -> PublisherThread:
        """Sends the calls."""
        return self._threads.made().publisher

    @property
    def consumer_thread(self) -> ConsumerThread:
        """Receives the results."""
        return self._threads.made().consumer

    @property
    def callback_observer_thread(self) -> CallbackObserverThread:
        """Watches over the callbacks."""
        return self._threads.made().observer

    @property
    def _results(self) -> ResultList:
        return self._threads.made().results

    # --- calls ------------------------------------------------------------------

    def _send(
        self,
        options: CallOptions,
        method_name: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        return self._call_and_wait(options, self.client_id, method_name, args, kwargs)

    def _call_and_wait(
        self,
        options: CallOptions,
        client_id: str,
        method_name: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        key = reply_routing_key(client_id)
        return call_and_wait(self._threads.running(), options, method_name, args, kwargs, key)

    def _submit(
        self,
        options: CallOptions,
        method_name: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Future[Any]:
        key = reply_routing_key(self.client_id)
        return submit(self, self._threads.running(), options, method_name, args, kwargs, key)

    def _send_one_way(
        self,
        options: CallOptions,
        method_name: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        threads = self._threads.running()
        call_and_wait(threads, options, method_name, args, kwargs, NO_REPLY, one_way=True)

    @property
    def _caller(self) -> Self:
        return self

    def set_timeout(self, timeout: float | None) -> "SynchronTimeout":
        """Return an object whose calls wait for *timeout* seconds at most; does not wait.

        None is for calls without a timeout, also where the proxy has one.

        ``proxy.set_timeout(10).add(2, 3)`` raises a
        :class:`~qam.exceptions.QAMTimeoutException` if there is no result after ten seconds.

        :raises TypeError, ValueError: *timeout* is not a positive number.
        """
        return SynchronTimeout(self, self.client_id, timeout)

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
        return Callback(self, None, self.client_id, functions=functions)

    def get_callback_state(self, uid: str) -> int:
        """Return the state of a callback: 0 waiting, 1 being executed, 2 finished.

        An unknown uid counts as finished.  Does not wait, but lets other threads run, so a
        loop may call it.

        :param uid: the uid that the call of a callback has returned.
        :returns: 0, 1 or 2.
        :raises TypeError: *uid* is a :class:`Callback`, of which no method was called.
        """
        let_others_run()
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
        let_others_run()
        return len(self.callback_observer_thread.callback_uid_dict)

    # --- closing ----------------------------------------------------------------

    @property
    def closed(self) -> bool:
        """True once :meth:`close` was called."""
        return self._threads.closing

    def close(self) -> None:
        """Stop the threads and close the connections; does nothing once that is done.

        Calls and callbacks that still wait end with a
        :class:`~qam.exceptions.QAMClosedException`.  Waits for the threads, five seconds at most,
        even if the broker does not respond.  Each of several threads may call it.  If Ctrl-C
        interrupts it, a second call does the rest.
        """
        if not self._finished:
            self._threads.begin_to_close()
            self._finish_closing(Deadline(_CLOSE_TIMEOUT))
            flush_logs()

    def _finish_closing(self, deadline: Deadline) -> None:
        self._threads.join_until(deadline)
        if not in_own_thread():  # else a callback closes it, whose thread has not ended
            _open_proxies.discard(self)
            self._finished = True

    def _in_forked_child(self) -> None:
        """In a forked child, which does not have the threads of the proxy: be closed.

        But a proxy that connects late begins anew, with the first call in the child.
        """
        if self._threads.late:
            self._threads.begin_anew()
        else:
            self._threads.closing = self._finished = True
            _open_proxies.discard(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    if not TYPE_CHECKING:  # a type checker refuses whatever is no attribute

        def __setattr__(self, name: str, value: object) -> None:
            """Refuse what would look like an option of the calls, and change none of them."""
            # A subclass may have such an attribute, and a test a fake of such a remote method.
            if name in CallOptions._fields and type(self) is QAMProxy and not callable(value):
                raise AttributeError(
                    f"{name} can't be set on a proxy; "
                    f"with_options(proxy, {name}=…) returns an object whose calls have it"
                )
            super().__setattr__(name, value)

    def __repr__(self) -> str:
        if "_threads" not in vars(self):
            return "<QAMProxy that is not made yet>"
        state = "closed" if self.closed else "open"
        what = f"{state} QAMProxy of {self._server_id!r} at {self.amqp_credentials}"
        return f"<{what}, as {self.client_id!r}{'' if self.closed else self._figures()}>"

    def _figures(self) -> str:
        threads = self._threads.current
        if threads is None:
            return ", not connected yet"
        calls = f"{threads.results.open_calls} open, {threads.publisher.queued_calls} queued"
        return f", {'' if threads.are_connected else 'not '}connected; calls: {calls}"


class SynchronTimeout(_RemoteNames):
    """Calls the methods of a proxy, each with a timeout.

    ``synchron_timeout.add(2, 3)`` or ``synchron_timeout('add', 2, 3)``.

    :param parent: the :class:`QAMProxy`.
    :param client_id: names the routing key by which replies come back.
    :param timeout: seconds that a call may take; None for any time.
    :raises TypeError, ValueError: *timeout* is not a positive number.
    """

    def __init__(self, parent: QAMProxy, client_id: str, timeout: float | None) -> None:
        self._parent = self._caller = parent
        self._client_id = client_id
        self._options = parent._options.changed(timeout=timeout)

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
        return callback.set_timeout(self._options.timeout)

    def _send(
        self,
        options: CallOptions,
        method_name: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        return self._parent._call_and_wait(options, self._client_id, method_name, args, kwargs)

    def __call__(self, method_name: str, /, *args: Any, **kwargs: Any) -> Any:
        """Call the remote method *method_name*, and wait for its result."""
        return self[method_name](*args, **kwargs)

    def __repr__(self) -> str:
        timeout = self._options.timeout
        seconds = "no timeout" if timeout is None else f"timeout of {timeout:g} seconds"
        return f"<{seconds} on {self._parent!r}>"


if TYPE_CHECKING:

    class _CallbackMethod(_Method):
        """A remote method of a Callback: its calls return uids."""

        def __getattr__(self, name: str) -> "_CallbackMethod": ...
        def __call__(self, /, *args: Any, **kwargs: Any) -> str: ...


class Callback(_RemoteNames):
    """Calls the methods of a proxy without a wait; its functions get the outcomes.

    ``callback.add(2, 3)`` or ``callback('add', 2, 3)`` returns a uid, a str, for
    :meth:`QAMProxy.get_callback_state`.  Each use makes another call.

    :param parent: the :class:`QAMProxy`.
    :param id: the slot that was reserved for the first call; None to reserve one then.
    :param client_id: names the routing key by which the reply comes back.
    :param functions: the two functions; by default those of the slot *id*.
    """

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> "_CallbackMethod": ...

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
        self._options = parent._options
        self._functions = functions
        # The reserved slot, which is freed if no call ever uses it.
        self._reserved: weakref.finalize[..., Any] | None = None
        if id is not None:
            slot = parent._results.slots[id]
            self._functions = slot["callback_method"], slot["exception_method"]
            self._reserved = weakref.finalize(self, parent._results.free, id)
            self._reserved.atexit = False

    def set_timeout(self, timeout: float | None) -> Self:
        """Let the calls take *timeout* seconds at most, or any time; return this Callback.

        After that time the error function gets a :class:`~qam.exceptions.QAMTimeoutException`.

        :raises TypeError, ValueError: *timeout* is not a positive number.
        """
        self._options = self._options.changed(timeout=timeout)
        return self

    def _send(
        self,
        options: CallOptions,
        method_name: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> str:
        threads, key = self._parent._threads.running(), reply_routing_key(self._client_id)
        deadline = options.own_deadline()
        call = threads.publisher.make_call(method_name, args, kwargs, key, deadline, options)
        try:
            try:
                self._begin(threads, call)
            except BaseException:
                self._abandon(threads, call)
                raise
        except BaseException:
            self._abandon(threads, call)  # again: a signal may have interrupted it
            raise
        return call.uid

    def _begin(self, threads: ClientThreads, call: PendingCall) -> None:
        """Send a call, whose outcome one of the functions gets."""
        if self._reserved is not None:
            self._reserved()  # frees it, for the next line to take
        threads.results.reserve(*self._functions, call)
        threads.observer.add_item(call.slot_id, call.deadline, call)
        threads.begin_call(call)

    def _abandon(self, threads: ClientThreads, call: PendingCall) -> None:
        """Leave nothing of a call that failed; to do that again does nothing."""
        threads.observer.give_up(call)
        threads.abandon(call)

    def __call__(self, method_name: str, /, *args: Any, **kwargs: Any) -> str:
        """Call the remote method *method_name*; return the uid of the call, without a wait."""
        uid: str = self[method_name](*args, **kwargs)
        return uid

    def __repr__(self) -> str:
        return f"<callback {self._functions[0]!r} on {self._parent!r}>"


def _ignore(result: Any) -> None:
    """Stand for the success function of a callback that has none."""


_open_proxies: weakref.WeakSet[QAMProxy] = weakref.WeakSet()


def _close_open_proxies() -> None:
    """At the end of the interpreter: let no thread of a proxy be cut off in the middle."""
    proxies = list(_open_proxies)
    for proxy in proxies:
        proxy._threads.begin_to_close()
    deadline = Deadline(_CLOSE_TIMEOUT)  # one for all, so a silent broker costs it only once
    for proxy in proxies:
        proxy._finish_closing(deadline)
    flush_logs()


atexit.register(_close_open_proxies)
