"""Offers functions and instances to QAMProxies.

>>> from qam.qam_server import QAMServer
>>> server = QAMServer(hostname='localhost', server_id='qamserver')     # doctest: +SKIP
>>> server.register_function(pow)                                      # doctest: +SKIP
>>> server.serve()                                                     # doctest: +SKIP
"""

import atexit
import signal
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from logging import DEBUG
from types import ModuleType
from typing import Any, NamedTuple, Self, TypeVar, overload

from qam._broker.connect import CONNECT_TIMEOUT, connect_patiently
from qam._broker.credentials import HEARTBEAT, AMQPCredentials, credentials_of
from qam._broker.endpoint import common_user
from qam._broker.messages import MAX_MESSAGE_BYTES
from qam._broker.tls import TLSOption
from qam._common.checks import (
    check_count,
    check_entity_name,
    check_exceptions,
    check_flag,
    check_queue_arguments,
    check_timeout,
    check_timeout_or_none,
    check_wait,
)
from qam._common.deadline import Deadline
from qam._common.doors import offer
from qam._common.error_texts import describe
from qam._common.fork import disown_in_child
from qam._common.job_queue import JobQueue
from qam._common.logs import FLUSH_TIMEOUT, get_logger
from qam._common.logs import flush as flush_logs
from qam._common.printable import printable
from qam._protocol.entities import siblings_binding
from qam._serialization.serializers import get_serializer
from qam._server.call import Call
from qam._server.execute_method_thread import ExecuteMethodThread
from qam._server.introspection import Introspection
from qam._server.life import Life
from qam._server.mailboxes import ResultQueue, SettledCalls
from qam._server.messages import Messages, declare_server
from qam._server.method_registry import MethodRegistry
from qam._server.middleware import Middleware, check_middleware
from qam._server.prefetch import MAX_PREFETCH, Prefetch
from qam._server.publisher_thread import ReplyPublisherThread
from qam._server.request_consumer_thread import CLOSE_GRACE, CLOSE_TIMEOUT, RequestConsumerThread
from qam._server.settings import MAX_IDLE_WORKERS, ServerSettings
from qam._server.stop_signals import closing_on, signals_to_stop_on
from qam._server.worker_pool import WorkerPool
from qam.exceptions import QAMClosedException, QAMException, QAMMethodNotFoundException

__all__ = [
    "ExecuteMethodThread",
    "Health",
    "MEthodNotFoundException",
    "MethodNotFoundException",
    "PublisherThread",
    "QAMException",
    "QAMMEthodNotFoundException",
    "QAMMethodNotFoundException",
    "QAMServer",
]

offer(__name__, ExecuteMethodThread, ReplyPublisherThread)

#: The same class, by its documented name.
PublisherThread = ReplyPublisherThread

Function = TypeVar("Function", bound=Callable[..., Any])

log = get_logger("qam.qam_server")

#: The exception for a method that is not registered, by its names in the original.
MethodNotFoundException = MEthodNotFoundException = QAMMethodNotFoundException
QAMMEthodNotFoundException = QAMMethodNotFoundException


class _GivenLater:
    """Stands for a function that is decorated, which comes after the other arguments."""


_GIVEN_LATER: Any = _GivenLater()


class Health(NamedTuple):
    """What :meth:`QAMServer.health` says."""

    #: Whether the server can go on.
    live: bool
    #: Whether requests reach it, and replies their clients.
    ready: bool
    #: Why it is not ready; empty if it is.
    reason: str


class QAMServer:
    """Runs registered methods for QAMProxies.

    The constructor connects, and declares the request queue, in which requests wait until
    :meth:`serve`.  It waits for that, up to *connect_timeout*.  Methods run in several threads
    at once.

    :param hostname: the host of the broker; or a URL, ``amqp://…``, ``amqps://…``, or
        ``memory://name`` for a broker inside this process; or a list of names or URLs,
        the nodes of a cluster.
    :param port: the broker's port.
    :param username: the user that connects to the broker.
    :param password: the user's password.
    :param vhost: the broker's virtual host.
    :param server_id: the id by which proxies find this server.  Servers with the same id
        share the work.
    :param serializer: ``'pickle'``, ``'json'`` or ``'msgpack'``, as the proxies are configured.
    :param ssl: True for TLS, verified against the system's authorities and the host name;
        or a dict or :class:`ssl.SSLContext`, see
        :class:`~qam.amqp_credentials.AMQPCredentials`.
    :param max_workers: how many methods run at once, at most; None for a thread for each request
        that the broker delivers.  A method that waits in a call of its own, through a proxy of
        this library, does not count.
    :param max_nested: how many such methods do not count, at most; 0 for none.
    :param prefetch: how many unacknowledged requests the broker delivers to the server, up
        to 65,535; by default as many as workers, and more while methods are short; 65,535 if
        *max_workers* is None.
    :param connect_timeout: seconds that connecting to the broker may take.
    :param trusted: classes, or names of modules and classes, whose instances messages may
        create in this process, beside those of :func:`qam.trust`.
    :param max_message_bytes: the size of the largest request that is received and of the
        largest reply that is sent; a call with a larger one raises at its caller.
    :param send_tracebacks: False to send callers no tracebacks, which name files and lines of
        this process and quote its source.
    :param log_exceptions: True to log what methods raise at ERROR, with the traceback.  False for
        services whose texts must not reach a log.
    :param expected_exceptions: the types of exceptions that are no errors of this server, such as
        ``(KeyError,)``; they are logged at DEBUG.
    :param queue_arguments: the arguments of the request queue, such as
        ``{'x-queue-type': 'quorum'}`` on a cluster; the same for all servers of one id.
    :param heartbeat: whole seconds between heartbeats; a broker that is silent for two of
        them counts as lost.
    :param credentials: where the broker is, instead of *hostname*, *port*, *username*,
        *password*, *vhost*, *ssl* and *heartbeat*.
    :param wait_for_broker: seconds for which the constructor tries to connect again where nobody
        can be reached, as while the broker starts.  A wrong password or vhost is told at once.
    :param middleware: functions of ``(call, proceed)`` around the registered methods, outermost
        first.  Each gets the :class:`qam.CurrentCall`, and calls ``proceed()`` to go on; what it
        returns or raises is what the caller gets.
    :param introspection: False to tell callers nothing of the methods, their signatures and
        docstrings.
    :raises QAMConnectionException: the broker can't be reached, or refuses the connection.
    :raises TypeError, ValueError: an argument is wrong; the error names it.
    """

    def __init__(
        self,
        hostname: str | Sequence[str] = "localhost",
        port: int = 5672,
        username: str = "guest",
        password: str = "guest",
        vhost: str = "/",
        server_id: str = "testqamserver",
        serializer: str = "pickle",
        ssl: TLSOption = False,
        *,
        max_workers: int | None = 32,
        max_nested: int = 256,
        prefetch: int | None = None,
        connect_timeout: float = CONNECT_TIMEOUT,
        trusted: Iterable[Any] = (),
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        send_tracebacks: bool = True,
        log_exceptions: bool = True,
        expected_exceptions: Iterable[type[BaseException]] = (),
        queue_arguments: Mapping[str, Any] | None = None,
        heartbeat: int = HEARTBEAT,
        credentials: AMQPCredentials | None = None,
        wait_for_broker: float = 0.0,
        middleware: Iterable[Middleware] = (),
        introspection: bool = True,
    ) -> None:
        check_entity_name(server_id, "server_id")
        fixed = None if prefetch is None else check_count(prefetch, "prefetch", MAX_PREFETCH)
        #: Where the broker is.
        self.amqp_credentials = credentials_of(
            credentials,
            AMQPCredentials(hostname, port, username, password, vhost, ssl, heartbeat),
        )
        self._settings = settings = ServerSettings(
            server_id=server_id,
            max_workers=_most_workers(max_workers),
            max_idle_workers=MAX_IDLE_WORKERS if max_workers is None else None,
            max_nested=check_count(max_nested, "max_nested", least=0),
            max_message_bytes=check_count(max_message_bytes, "max_message_bytes"),
            send_tracebacks=check_flag(send_tracebacks, "send_tracebacks"),
            log_exceptions=check_flag(log_exceptions, "log_exceptions"),
            expected_exceptions=check_exceptions(expected_exceptions, "expected_exceptions"),
            middleware=check_middleware(middleware),
            connect_timeout=check_timeout(connect_timeout, "connect_timeout"),
            serializer=get_serializer(serializer, trusted=trusted),
            queue_arguments=check_queue_arguments(queue_arguments),
            user=common_user(self.amqp_credentials.endpoints()),
        )
        #: The id by which proxies find this server.
        self.server_id = server_id
        self._methods = MethodRegistry()
        if check_flag(introspection, "introspection"):
            asked = Introspection(server_id, self._methods)
            self._methods.add_system_methods(asked.system_methods)
        # First the mailboxes between the threads, then the threads.
        self._calls: JobQueue[Call] = JobQueue()
        results, settled = ResultQueue(), SettledCalls()
        self._results = results
        credentials = self.amqp_credentials
        messages = Messages(server_id, settings.serializer, settings.user)
        self._publisher = ReplyPublisherThread(
            credentials, settings, results, settled, self._publisher_ended
        )
        self._workers = WorkerPool(
            settings, self._calls, self._methods, messages, self._publisher, settled
        )
        prefetch_now = Prefetch(settings.max_workers, fixed)
        self._consumer = RequestConsumerThread(
            credentials,
            settings,
            prefetch_now,
            messages,
            self._workers,
            results,
            settled,
            self._end,
        )
        self._life = Life()
        self._waits_in_serve: threading.Thread | None = None
        self._declare(check_wait(wait_for_broker, "wait_for_broker"))
        disown_in_child(self)

    def _declare(self, wait_for_broker: float) -> None:
        endpoints = self.amqp_credentials.endpoints()
        timeout = self._settings.connect_timeout
        connection = connect_patiently(endpoints, timeout, wait_for_broker)
        try:
            declare_server(connection, self.server_id, self._settings.queue_arguments)
            connection.declare_exchange(siblings_binding(self.server_id, "").exchange)
        finally:
            connection.close()

    # --- methods ----------------------------------------------------------------

    @overload
    def register_function(
        self, method: Function, name: str | None = None, *, idempotent: bool = False
    ) -> Function: ...
    @overload
    def register_function(
        self, *, name: str | None = None, idempotent: bool = False
    ) -> Callable[[Function], Function]: ...
    def register_function(
        self,
        method: Callable[..., Any] = _GIVEN_LATER,
        name: str | None = None,
        *,
        idempotent: bool = False,
    ) -> Any:
        """Offer a function to the proxies; can also be used as a decorator; does not wait.

        ``@server.register_function`` or ``@server.register_function(name='plus')``.  An
        ``async def`` function runs on the event loop of the server, while a worker waits for it.

        :param method: the function.
        :param name: the name by which it is called; by default that of :func:`qam.expose`, or
            its own.
        :param idempotent: True if running it again for the same call does no harm.  If the
            server dies while it runs, another server runs it again, three times in all at most.
        :returns: the function.
        :raises TypeError: *method* is not callable, or it is a generator function, also inside
            a :func:`functools.partial` or a cache.
        :raises ValueError: *name* is not a valid method name: it is not an identifier, or
            begins with an underscore.
        """
        if method is _GIVEN_LATER:
            return lambda decorated: self.register_function(decorated, name, idempotent=idempotent)
        self._methods.add_function(method, name, idempotent)
        return method

    def register_class(
        self,
        instance: Any,
        name: str,
        *,
        methods: Iterable[str] | None = None,
        idempotent: Iterable[str] = (),
        dynamic: bool = False,
    ) -> None:
        """Offer the public methods of an instance, as ``proxy.name.method()``; does not wait.

        By default these are the methods of its type: functions, static and class methods,
        cached and partial ones, and those of builtin types.  Properties, classes and other
        objects are not offered.  Callable attributes of the instance itself, as after
        ``self.run = subprocess.run``, are offered only if *methods* names them.  If methods are
        marked by :func:`qam.expose`, only those are offered.  Finding the methods runs no code
        of *instance*.

        With *dynamic*, the method is looked up in the worker when it is called, by
        :func:`getattr`.  Then clients can call **everything** that can be reached from the
        instance by public names, as ``proxy.name.part.method()``: what it got later, objects
        in its attributes, modules, classes, and what is in those.  Properties on the way are
        evaluated.  Use it for trusted clients only.

        :param instance: the instance.
        :param name: the name by which it is called.
        :param methods: the names of the methods to offer; by default all public methods of the
            type.  A name may also be that of a callable attribute of the instance itself.  A
            name with a leading underscore, a property or a class is refused.
        :param idempotent: the names of the methods that may run again, see
            :meth:`register_function`.
        :param dynamic: True to look methods up when they are called; not with *methods*.
        :raises TypeError: *instance* is a class, or has no public methods; or one of the
            methods to offer is a generator function, which can't be called remotely.
        :raises ValueError: *name* is not a valid name, or one of *methods* or *idempotent* is
            no public method; or *methods* are named for a *dynamic* instance.
        """
        self._methods.add_instance(instance, name, methods, idempotent, dynamic)

    def register_module(self, module: ModuleType) -> None:
        """Offer the functions of a module, by their names; does not wait.

        Those that are marked by :func:`qam.expose`; if there are none, the functions that its
        ``__all__`` names; if it has none, the public functions that it defines itself.

        :param module: the module.
        :raises TypeError: *module* is no module, or has no such functions; or one is a generator
            function.
        :raises ValueError: a name is not valid, as in :meth:`register_function`.
        """
        self._methods.add_module(module)

    # --- serving ----------------------------------------------------------------

    def serve(
        self,
        *,
        stop_on: Iterable[signal.Signals] | None = None,
        close_timeout: float = CLOSE_TIMEOUT,
    ) -> None:
        """Receive and answer requests until :meth:`close`; blocks.

        SIGTERM closes the server, and then this returns.  Ctrl-C closes it too, then raises
        KeyboardInterrupt.  A second signal ends the process at once.  A lost connection is opened
        again.  Returns at once if the server was closed before.

        :param stop_on: the signals that close the server meanwhile, such as ``[signal.SIGTERM]``,
            or ``()`` for none; only in the main thread.  None stands for SIGTERM in the main
            thread, unless the application handles it.
        :param close_timeout: seconds that the requests at hand get then, see :meth:`close`.
        :raises TypeError: *stop_on* is no list, or *close_timeout* no number.
        :raises ValueError: *stop_on* is used outside the main thread, or contains an object
            that is no signal, or a signal that can't be handled; or *close_timeout* is not
            positive.
        :raises QAMClosedException: the process was forked after the server was made; or
            the server died of an internal error.
        :raises QAMConnectionException: the broker can't be reached at the start.
        :raises RuntimeError: the server serves already, or has served.
        """
        signals = signals_to_stop_on(stop_on)
        close_timeout = check_timeout(close_timeout, "close_timeout")
        if not self._begin(partial(self._serve, signals, close_timeout)):
            return
        if self._life.failure is not None:
            raise QAMClosedException("the server died of an internal error") from self._life.failure

    def _serve(self, signals: Iterable[signal.Signals], close_timeout: float) -> None:
        self._waits_in_serve = threading.current_thread()
        try:
            with closing_on(signals, partial(self.close, close_timeout)):
                self._start_threads()
                self._life.wait()
        except KeyboardInterrupt:
            if self._workers:  # else it had no threads yet
                self._consumer.begin_to_close(Deadline(close_timeout))
                self._life.wait(close_timeout + CLOSE_GRACE)  # a second Ctrl-C does not
            raise

    def start(self) -> None:
        """Serve in other threads; waits until the server consumes requests, then returns.

        :raises QAMConnectionException: the broker can't be reached.
        :raises QAMClosedException: the server is closed, or the process was forked after
            it was made.
        :raises RuntimeError: the server serves already, or has served.
        """
        if not self._begin(self._start_threads):
            raise QAMClosedException("the server is closed; make a new one")

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the server has ended; return whether it has.

        A server that :meth:`start` has started serves meanwhile.

        :param timeout: seconds to wait, at most; None for any time.
        :raises TypeError, ValueError: *timeout* is not a positive number.
        """
        self._life.wait(check_timeout_or_none(timeout))
        return self._life.is_over

    @property
    def serving(self) -> bool:
        """True while it receives and answers requests: from its start until :meth:`close`."""
        return self._life.serves

    @property
    def closed(self) -> bool:
        """True once :meth:`close` was called, or it has ended otherwise."""
        return self._life.is_closed

    def health(self) -> Health:
        """Return whether the server lives, and whether requests reach it; does not wait.

        A server lives until it ends, also while the broker is away.  It is ready while it
        consumes requests and its replies can be sent.
        """
        if self._life.failure is not None:
            return Health(False, False, f"it died: {describe(self._life.failure)}")
        if not self._life.serves:
            return Health(not self._life.is_over, False, f"the server is {self._life}")
        if not self._consumer.takes_requests:
            why = self._consumer.why_not_connected or "it is not ready yet"
            return Health(True, False, f"it receives no requests: {why}")
        if not self._publisher.is_connected:
            why = self._publisher.why_not_connected or "it is not ready yet"
            return Health(True, False, f"it can't send replies: {why}")
        return Health(True, True, "")

    def _begin(self, go_on: Callable[[], None]) -> bool:
        """Begin to serve, which a server does once, and *go_on*; return False if it is closed."""
        attempt = object()  # tells whether it was this one that has begun, also after Ctrl-C
        try:
            if not self._life.begin(attempt):
                return False
            _serving.add(self)
            go_on()
        except BaseException:
            if self._life.begun_by is attempt and not self._workers:  # no thread will end it
                self._end(None)
            raise
        return True

    def _start_threads(self) -> None:
        log.isEnabledFor(DEBUG)  # remembered, for the threads that are about to start
        try:
            # One worker now: at the end of the interpreter no thread may start any more.
            self._workers.start_worker()
            self._publisher.start()
            self._consumer.start()
            # It takes longer only while the broker has an alarm: then no reply could be sent.
            self._consumer.taking.wait(self._settings.connect_timeout)
            methods = printable(", ".join(self._methods.names) or "no methods")
            log.info("%r serves at %s: %s", self.server_id, self.amqp_credentials, methods)
        except BaseException:
            self._consumer.exit()
            self._end(None)
            raise

    def _publisher_ended(self, error: BaseException | None) -> None:
        """Note the end of the publisher; if a bug ended it, end the server, which can't reply."""
        if error is not None:
            self._life.fail(error)
            self._consumer.ask_to_stop()

    def _in_forked_child(self) -> None:
        """In a forked child, which does not have the threads of the server: be closed."""
        self._life.after_fork()
        _serving.discard(self)

    # --- as in 0.2.x --------------------------------------------------------------

    @property
    def method_dict(self) -> dict[str, Any]:
        """The registered functions by name; a copy."""
        return self._methods.functions

    @property
    def instance_dict(self) -> dict[str, Any]:
        """The registered instances by name; a copy."""
        return dict(self._methods.instances)

    @property
    def result_queue(self) -> list[Any]:
        """The replies that are not sent yet, oldest first; a copy."""
        return list(self._results.messages)

    @property
    def kill(self) -> bool:
        """True once it was asked to end."""
        return self._life.is_closed or self._consumer.kill

    @property
    def finished(self) -> bool:
        """True once its threads have ended."""
        return self._life.is_over

    # --- closing ----------------------------------------------------------------

    def close(self, timeout: float = CLOSE_TIMEOUT) -> None:
        """Take no more requests, answer those at hand, and end the threads.

        Waits until that is done, at most five seconds longer than *timeout*.  But if a method
        of the server calls it, or a signal handler in the thread that waits in :meth:`serve`,
        it only begins to close, and returns.
        Before :meth:`serve`, and after the end, it returns at once.

        :param timeout: seconds for the requests at hand.  Those not started by then are given
            back to the queue.  A method that still runs then is told by ``current_call()``, and
            an ``async def`` method is cancelled.  It can't reply any more: its caller
            gets a :class:`~qam.exceptions.QAMServerLostException`, or another server runs it
            again if it is idempotent.
        :raises TypeError, ValueError: *timeout* is not a positive number.
        """
        timeout = check_timeout(timeout)
        if not self._life.close():
            return
        self._consumer.begin_to_close(Deadline(timeout))
        in_serve = threading.current_thread() is self._waits_in_serve
        if not (in_serve or self._workers.run_here):
            self._life.wait(Deadline(timeout + CLOSE_GRACE - FLUSH_TIMEOUT).wait_time())
            flush_logs()

    def _end(self, error: BaseException | None) -> None:
        """End the other threads; no more requests are received, perhaps because of *error*."""
        self._life.fail(error)
        try:
            self._workers.close()
            self._publisher.exit()
            self._workers.join()
            _serving.discard(self)
            log.info("%r serves no more", self.server_id)
        finally:
            self._life.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        if "_life" not in vars(self):
            return "<QAMServer that is not made yet>"
        figures = self._figures() if self._life.has_threads else ""
        return f"<{self._life} QAMServer {self.server_id!r} at {self.amqp_credentials}{figures}>"

    def _figures(self) -> str:
        connected = self._publisher.is_connected and self._consumer.is_connected
        calls = f"{self._workers.running} running, {len(self._calls)} queued"
        return f", {'connected' if connected else 'not connected'}; calls: {calls}"


def _most_workers(max_workers: int | None) -> int:
    """Return how many workers there may be; the broker delivers no more requests at a time."""
    return MAX_PREFETCH if max_workers is None else check_count(max_workers, "max_workers")


_serving: weakref.WeakSet[QAMServer] = weakref.WeakSet()


def _close_serving() -> None:
    """At the end of the interpreter: let no method be cut off in the middle."""
    for server in list(_serving):
        server.close()


atexit.register(_close_serving)
