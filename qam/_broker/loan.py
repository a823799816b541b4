"""Lends a connection to other threads while the thread that owns it sleeps."""

from collections.abc import Callable

from qam._broker.connection import Connection
from qam._broker.waker import Waker
from qam._common.own_locks import own_lock
from qam.exceptions import QAMConnectionException


class Loan:
    """Ensures that one thread uses a connection: its owner, or a borrower while the owner sleeps.

    :param waker: wakes the owner.
    """

    def __init__(self, waker: Waker) -> None:
        self._waker = waker
        #: Held by the thread that uses the connection.  It guards the connection and the three
        #: attributes below.  Reentrant, because a finalizer that stops the owner may run inside.
        self.in_use = own_lock()
        self._lent: Connection | None = None
        # True while a thread borrows the connection.  If it stays True afterwards, Ctrl-C has
        # interrupted the borrower, and nobody knows how much it has read or written.
        self._borrowed = False
        # The loss of the connection that a borrower noticed, for the owner to handle.
        self._loss_noticed: QAMConnectionException | None = None

    @property
    def is_here(self) -> bool:
        """True if the calling thread uses the connection at this moment."""
        return bool(self.in_use._is_owned())

    def lend(self, connection: Connection) -> None:
        """Let other threads borrow *connection* from now on; under :attr:`in_use`."""
        self._lent = connection

    def check(self) -> None:
        """Check the state in which the borrowers left the connection; under :attr:`in_use`.

        :raises QAMConnectionException: the connection is lost, or its state is unknown.
        """
        if self._loss_noticed is not None:
            raise self._loss_noticed
        if self._borrowed:
            raise QAMConnectionException("a caller was interrupted while it used the connection")

    def end(self) -> None:
        """Stop lending the connection."""
        with self.in_use:
            self._lent, self._borrowed, self._loss_noticed = None, False, None

    def after_fork(self) -> None:
        """Stop lending, and replace the lock, which no thread releases; in a forked child."""
        self.in_use = own_lock()
        self._lent = None

    def borrow(self, use: Callable[[Connection], bool]) -> bool:
        """Call *use* with the connection, in the calling thread; does not wait.

        :param use: returns whether it has used the connection.
        :returns: the result of *use*; False if there is no connection, or a thread uses it, also
            this one; True if *use* has lost the connection.
        """
        if self.is_here:
            return False
        try:
            try:
                return self._borrow_if_free(use)
            finally:
                self._leave()
        finally:
            self._leave()  # again: Ctrl-C may have interrupted it

    def _borrow_if_free(self, use: Callable[[Connection], bool]) -> bool:
        free = self.in_use.acquire(blocking=False)
        if not free or self._lent is None or self._borrowed or self._loss_noticed:
            return False
        return self._borrow(self._lent, use)

    def _leave(self) -> None:
        if self.is_here:
            self.in_use.release()

    def _borrow(self, connection: Connection, use: Callable[[Connection], bool]) -> bool:
        try:
            self._borrowed = True  # stays True if Ctrl-C interrupts the rest
            done = self._use(connection, use)
            self._borrowed = False
        except BaseException:
            self._waker.wake()  # else the owner would not know before it wakes for another reason
            raise
        return done

    def _use(self, connection: Connection, use: Callable[[Connection], bool]) -> bool:
        try:
            return use(connection)
        except QAMConnectionException as error:
            self._loss_noticed = error
            self._waker.wake()
            return True
