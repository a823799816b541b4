"""How commands end: their exit codes, and the mistakes that are told in one line.  No I/O here."""

from qam._common.error_texts import describe
from qam.exceptions import (
    QAMConnectionException,
    QAMException,
    QAMMethodNotFoundException,
    QAMSerializationException,
    QAMServerNotFoundException,
    QAMTimeoutException,
)

#: All is well.
OK = 0
#: The remote method raised an exception; the server is not healthy; or an internal error.
FAILED = 1
#: The command was given something wrong.
WRONG_USE = 2
#: The broker can't be reached, refuses, or was lost.
NO_BROKER = 3
#: The server has no such method.
NO_METHOD = 4
#: There is no server.
NO_SERVER = 5
#: The time was up.
TIMED_OUT = 6
#: The server or the connection was lost with the call, or the proxy was closed.
LOST = 7
#: Ctrl-C, as shells report it.
INTERRUPTED = 130
#: Nobody reads the output any more, as shells report it.
UNREAD = 141


class Mistake(Exception):
    """Ends a command; its text says what is wrong, and what to do.

    :param exit_code: the exit code of the command.
    """

    def __init__(self, text: str, exit_code: int = WRONG_USE) -> None:
        super().__init__(text)
        self.exit_code = exit_code


def exit_code_of(error: QAMException) -> int:
    """Return the exit code of a command that ends with *error*."""
    match error:
        case QAMConnectionException():
            return NO_BROKER
        case QAMMethodNotFoundException():
            return NO_METHOD
        case QAMServerNotFoundException():
            return NO_SERVER
        case QAMTimeoutException():
            return TIMED_OUT
        case QAMSerializationException():
            return WRONG_USE if error.executed == "no" else FAILED
    return LOST


def mistake_of(error: QAMException, server_id: str | None = None) -> Mistake:
    """Return what a command that called *server_id* tells of *error*."""
    hint = _hint(error, server_id) if server_id else ""
    return Mistake(f"{error}{hint}", exit_code_of(error))


def _hint(error: QAMException, server_id: str) -> str:
    match error:
        case QAMMethodNotFoundException():
            return f"; `qam methods {server_id}` lists what it has"
        case QAMTimeoutException():
            return (
                f"; `qam health {server_id}` tells whether a server is there, "
                "and --timeout gives it more time"
            )
        case QAMSerializationException() if error.executed == "no":
            return "; --serializer has to be that of the server"
    return ""


def raised_by_method(method: str, error: Exception, server_id: str) -> Mistake:
    """Return what is told of an exception that a remote method raised."""
    text = describe(error)
    hint = f"; `qam methods {server_id}` shows its parameters" * isinstance(error, TypeError)
    return Mistake(f"{method}() raised {text}{hint}; executed: yes", FAILED)
