"""Everything that a call can raise beside what its own method raised.

::

    QAMException                        the root: .executed, .safe_to_retry
     +- QAMMethodNotFoundException      the server knows no method of that name
     +- QAMTimeoutException             also a TimeoutError
     +- QAMConnectionException          also a ConnectionError
     +- QAMServerNotFoundException      nobody ever declared that server_id
     +- QAMServerLostException          the server went away while it had the call
     +- QAMClosedException              the proxy was closed under the call
     +- QAMSerializationException       arguments or result can't be encoded or decoded

    RemoteException                     what the method raised, where its type can't be built here

A call that fails raises either what its method raised, or a
:class:`QAMException`.  The two never mix: an exception of this library that a
remote method lets through reaches the caller as a :class:`RemoteException`.
"""

from typing import Any, Literal

Executed = Literal["no", "unknown", "yes"]


class QAMException(Exception):
    """The call did not deliver a result of its method.

    :param args: the text, as for every exception.
    :param executed: ``"no"`` if the method surely did not run and never will for
        this call, ``"unknown"`` if it may have run or may still run, ``"yes"`` if
        it ran and only its result was lost.
    """

    _executed_by_default: Executed = "unknown"

    def __init__(self, *args: object, executed: Executed | None = None) -> None:
        super().__init__(*args)
        #: Whether the method ran: ``"no"``, ``"unknown"`` or ``"yes"``.
        self.executed: Executed = executed or self._executed_by_default

    @property
    def safe_to_retry(self) -> bool:
        """True if the same call can be made again without running twice."""
        return self.executed == "no"


class QAMMethodNotFoundException(QAMException):
    """The server has no method registered under the name that was called."""

    _executed_by_default: Executed = "no"


class QAMTimeoutException(QAMException, TimeoutError):
    """No result came within the time that the caller gave."""


class QAMConnectionException(QAMException, ConnectionError):
    """The broker can't be reached, refuses us, or went away with the call."""

    #: True if the broker ended the channel because of something that was sent on it.
    by_message: bool = False


class QAMServerNotFoundException(QAMException):
    """The broker has no request queue for the server_id: nobody ever served it."""

    _executed_by_default: Executed = "no"


class QAMServerLostException(QAMException):
    """The server that had the call died, or lost its connection, before it answered."""


class QAMClosedException(QAMException):
    """The proxy (or server) is closed, or was closed while the call waited."""

    _executed_by_default: Executed = "no"


class QAMSerializationException(QAMException):
    """The arguments or the result can't be encoded, decoded, or are not allowed."""

    _executed_by_default: Executed = "no"


class RemoteException(Exception):
    """What a remote method raised, where that type can't be built in this process.

    Its ``args`` are those of the remote exception.  One that is no plain value is shown
    by a text there.

    :param type_name: the remote type, as ``module.QualifiedName``.
    :param remote_args: the remote exception's ``args``, a tuple.
    :param text: the remote exception's text.
    """

    def __init__(self, type_name: str, remote_args: tuple[Any, ...] = (), text: str = "") -> None:
        super().__init__(*remote_args)
        #: The remote type, as ``module.QualifiedName``.
        self.type_name = type_name
        #: The remote exception's ``args``.
        self.remote_args = remote_args
        #: The remote exception's text.
        self.text = text

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.type_name, self.remote_args, self.text), vars(self)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.type_name!r}, {self.remote_args!r}, {self.text!r})"

    def __str__(self) -> str:
        return f"{self.type_name}: {self.text}" if self.text else self.type_name
