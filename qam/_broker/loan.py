"""A connection that others borrow while the thread that owns it sleeps."""

import threading
from collections.abc import Callable
from typing import Any

from qam._broker.connection import Connection
from qam._broker.waker import Waker
from qam.exceptions import QAMConnectionException


class Loan:
    """Who uses a connection: its owner while it works, or one other thread while it sleeps.

    :param waker: wakes the owner.
    """

    def __init__(self, waker: Waker) -> None:
        self._waker = waker
        #: Held by whoever uses the connection.  It guards what belongs to the connection, and
        #: the three below.  Reentrant, as a finalizer that stops the owner may run inside.
        self.in_use: Any = threading.RLock()
        self._lent: Connection | None = None
        # Somebody borrows the connection; if nobody does, Ctrl-C has struck them in the
        # middle, and how much they have read or written is not known.
        self._borrowed = False
        # The loss of the connection that a borrower noticed, and leaves to the owner.
        self._loss_noticed: QAMConnectionException | None = None

    @property
    def is_here(self) -> bool:
        """True if the thread that asks uses the connection at this moment."""
        return bool(self.in_use._is_owned())

    def lend(self, connection: Connection) -> None:
        """Others may borrow *connection* from now on; under :attr:`in_use`."""
        self._lent = connection

    def check(self) -> None:
        """Look at what the borrowers left; under :attr:`in_use`.

        :raises QAMConnectionException: the connection is lost, or in a state that nobody knows.
        """
        if self._loss_noticed is not None:
            raise self._loss_noticed
        if self._borrowed:
            raise QAMConnectionException("a caller was interrupted while using the connection")

    def end(self) -> None:
        """Nobody borrows the connection any more."""
        with self.in_use:
            self._lent, self._borrowed, self._loss_noticed = None, False, None

    def after_fork(self) -> None:
        """Lend nothing; in a forked child, where nobody releases the lock."""
        self.in_use = threading.RLock()
        self._lent = None

    def borrow(self, use: Callable[[Connection], bool]) -> bool:
        """Call *use* with the connection, in the thread that calls; return what it returns.

        Returns False if the connection is not there, or somebody uses it at this moment.
        Returns True if the connection is lost by that.  Does not wait.

        :param use: returns whether it has used the connection.
        """
        try:
            # Inside, because Ctrl-C may strike as soon as it is acquired.
            free = self.in_use.acquire(blocking=False)
            if not free or self._lent is None or self._borrowed or self._loss_noticed:
                return False
            return self._borrow(self._lent, use)
        finally:
            try:  # without a call before it, for the same reason  # noqa: SIM105
                self.in_use.release()
            except RuntimeError:  # it is another's
                pass

    def _borrow(self, connection: Connection, use: Callable[[Connection], bool]) -> bool:
        self._borrowed = True  # until the end, which Ctrl-C may prevent
        try:
            done = use(connection)
        except QAMConnectionException as error:
            self._loss_noticed, done = error, True
            self._waker.wake()
        self._borrowed = False
        return done
