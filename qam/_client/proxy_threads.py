"""Which threads a proxy has: none yet, those that run, or others in place of those that failed."""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager

from qam._client.client_threads import ClientSettings, ClientThreads
from qam._client.execute_callback_thread import Parent
from qam._common.deadline import Deadline
from qam._common.own_locks import own_lock
from qam.exceptions import Executed, QAMClosedException, QAMException


class ProxyThreads:
    """The threads of one proxy, from its constructor or its first call on until it is closed.

    :param proxy: the proxy; it is not kept alive.
    :param settings: its arguments.
    :param late: True to connect with the first call, and again if that fails.
    :param close_timeout: seconds that closing the threads takes at most.
    """

    def __init__(
        self, proxy: Parent, settings: ClientSettings, *, late: bool, close_timeout: float
    ) -> None:
        self._proxy = weakref.ref(proxy)
        self._settings = settings
        #: True if they are started by the first call.
        self.late = late
        self._close_timeout = close_timeout
        #: True once the proxy is about to close: no thread starts after that.
        self.closing = False
        #: The threads; None as long as nobody needs them.
        self.current: ClientThreads | None = None
        self._finalizer: weakref.finalize[..., object] | None = None
        # Guards that the threads of a proxy that connects late are started once.  Reentrant,
        # so that a finalizer inside the section can be refused.
        self._lock = own_lock()

    # --- they begin -----------------------------------------------------------------

    def open(self) -> None:
        """Start the threads, and wait until both connections are open.

        :raises QAMConnectionException: one can't be opened; then all threads have ended.
        """
        threads = self._made()
        try:
            threads.open()
            self._end_with_proxy(threads)
        except BaseException:
            threads.ask_to_stop()
            threads.join_until(Deadline(self._close_timeout))
            raise

    def running(self) -> ClientThreads:
        """Return threads that take calls; those that connect late are started by the first one.

        :raises QAMClosedException: they are to be started, and the proxy is closed.
        """
        threads = self.current
        if threads is None or (self.late and not threads.are_usable):
            return self._begin_late()
        return threads

    def made(self) -> ClientThreads:
        """Return the threads, which may not have been started."""
        threads = self.current
        if threads is None:
            with self._start():
                return self._made()
        return threads

    def _made(self) -> ClientThreads:
        """Return the threads, and make them first if there are none; only one thread does so."""
        if self.current is None:
            self.current = self._new()
        return self.current

    def _new(self) -> ClientThreads:
        proxy = self._proxy()
        if proxy is None:  # it is garbage, and a finalizer beside it makes a call
            raise self.closed("no")
        return ClientThreads(proxy, self._settings)

    def _begin_late(self) -> ClientThreads:
        """Return threads that run: new ones for the first call, and after a failed attempt."""
        with self._start():
            if self.closing:
                raise self.closed("no")
            threads = self._made()
            if threads.have_failed and not threads.observer.callback_uid_dict:
                threads.ask_to_stop()
                threads = self.current = self._new()
            if not threads.have_begun:
                self._begin(threads)
            return threads

    def _begin(self, threads: ClientThreads) -> None:
        try:
            self._end_with_proxy(threads)
            threads.begin()
        except BaseException:  # as where no thread can be started: the next call begins anew
            threads.ask_to_stop()
            self.current = None
            raise

    @contextmanager
    def _start(self) -> Iterator[None]:
        if self._lock._is_owned():
            raise QAMException(
                "a finalizer or signal handler can't make a call here: it interrupts the start "
                "of the proxy's threads",
                executed="no",
            )
        with self._lock:
            yield

    def _end_with_proxy(self, threads: ClientThreads) -> None:
        """If an idle proxy is dropped, its threads end."""
        self._forget_finalizer()
        self._finalizer = weakref.finalize(self._proxy(), threads.ask_to_stop)
        self._finalizer.atexit = False

    def _forget_finalizer(self) -> None:
        # It keeps the threads alive, and these keep the proxy alive.
        if self._finalizer is not None:
            self._finalizer.detach()

    # --- they end -------------------------------------------------------------------

    def begin_to_close(self) -> None:
        """End the calls, and ask the owners of connections to end; wait for nothing."""
        with self._lock:  # no thread starts after that
            self.closing = True
        if (threads := self.current) is not None:
            try:
                threads.publisher.close_calls(self.closed)
            finally:
                threads.ask_owners_to_stop()

    def join_until(self, deadline: Deadline) -> None:
        """Wait for the end of the threads."""
        if (threads := self.current) is not None:
            threads.join_until(deadline)
        self._forget_finalizer()

    def closed(self, executed: Executed) -> QAMClosedException:
        """Return the error of a call that the end of the proxy ends."""
        return QAMClosedException(
            f"the proxy of {self._settings.server_id!r} is closed; make a new one",
            executed=executed,
        )

    def begin_anew(self) -> None:
        """In a forked child, which has none of the threads: the first call starts others."""
        self._lock = own_lock()
        self._forget_finalizer()
        self.current = None
