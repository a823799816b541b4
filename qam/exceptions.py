"""The exceptions that a call can raise beside those of its own method.

::

    QAMException                        the root: .executed, .safe_to_retry
     +- QAMMethodNotFoundException      the server has no method of that name
     +- QAMTimeoutException             also a TimeoutError
     +- QAMConnectionException          also a ConnectionError
     +- QAMServerNotFoundException      no server ever served that server_id
     +- QAMServerLostException          the server died while it had the call
     +- QAMClosedException              the proxy or server is closed
     +- QAMSerializationException       arguments or result can't be encoded or decoded

    RemoteException                     the method raised a type that can't be built here

A call that fails raises either the exception of its method, or a :class:`QAMException`.
The two never mix: if the remote method raises an exception of this library, its caller gets
that as a :class:`RemoteException`.
"""

from typing import Any, Literal

Executed = Literal["no", "unknown", "yes"]


class QAMException(Exception):
    """The call ended without a result or an exception of its method.

    :param args: the text, as for every exception.
    :param executed: ``"no"`` if the method did not run and never will for this call,
        ``"unknown"`` if it may have run or may still run, ``"yes"`` if it ran and only its
        result was lost.
    """

    _executed_by_default: Executed = "unknown"

    def __init__(self, *args: object, executed: Executed | None = None) -> None:
        super().__init__(*args)
        #: Whether the method ran: ``"no"``, ``"unknown"`` or ``"yes"``.
        self.executed: Executed = executed or self._executed_by_default

    @property
    def safe_to_retry(self) -> bool:
        """True if the method did not run, so that the same call can be made again."""
        return self.executed == "no"


class QAMMethodNotFoundException(QAMException):
    """The server has no method registered under the name that was called."""

    _executed_by_default: Executed = "no"


class QAMTimeoutException(QAMException, TimeoutError):
    """No result came within the timeout of the call."""


class QAMConnectionException(QAMException, ConnectionError):
    """The broker can't be reached, refuses the connection or a request, or was lost."""

    #: True if the broker closed the channel because of a message on it.
    by_message: bool = False
    #: True if a broker answered, and refused the user, the vhost or the settings.
    refused: bool = False
    #: True if a broker that was reached did not answer in time.
    unanswered: bool = False


class QAMServerNotFoundException(QAMException):
    """The broker has no request queue for the server_id: no server ever served it."""

    _executed_by_default: Executed = "no"


class QAMServerLostException(QAMException):
    """The server that had the call died, or lost its connection, before it answered."""


class QAMClosedException(QAMException):
    """The proxy (or server) is closed, or was closed while the call waited."""

    _executed_by_default: Executed = "no"


class QAMSerializationException(QAMException):
    """The arguments or the result can't be encoded or decoded, are too large, or not allowed."""

    _executed_by_default: Executed = "no"


class RemoteException(Exception):
    """The remote method raised an exception whose type can't be built in this process.

    Its ``args`` are those of the remote exception.  A text replaces each one that is no plain
    value.

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
