"""Remote procedure calls over AMQP for threaded Python."""

import re
from typing import Any

from qam._common.doors import offer
from qam._serialization.trust import trust
from qam._server.current_call import CurrentCall, current_call
from qam._server.exposed import expose
from qam.amqp_credentials import AMQPCredentials
from qam.calls import MultiCall, ping, send, submit, with_options
from qam.exceptions import (
    QAMClosedException,
    QAMConnectionException,
    QAMException,
    QAMMethodNotFoundException,
    QAMSerializationException,
    QAMServerLostException,
    QAMServerNotFoundException,
    QAMTimeoutException,
    RemoteException,
)
from qam.qam_proxy import (
    Callback,
    CallbackObserverThread,
    ConsumerThread,
    ExecuteCallbackThread,
    PublisherThread,
    QAMProxy,
    SynchronTimeout,
)
from qam.qam_server import QAMServer

__all__ = [
    # the client and the server
    "QAMProxy",
    "QAMServer",
    "AMQPCredentials",
    "trust",
    # other ways to call
    "submit",
    "send",
    "MultiCall",
    "ping",
    "with_options",
    # methods of a server
    "expose",
    "current_call",
    "CurrentCall",
    # the parts of a proxy
    "Callback",
    "SynchronTimeout",
    "ConsumerThread",
    "PublisherThread",
    "CallbackObserverThread",
    "ExecuteCallbackThread",
    # the exceptions of a call
    "QAMException",
    "QAMMethodNotFoundException",
    "QAMTimeoutException",
    "QAMConnectionException",
    "QAMServerNotFoundException",
    "QAMServerLostException",
    "QAMClosedException",
    "QAMSerializationException",
    "RemoteException",
]

offer(__name__, trust, current_call, CurrentCall, expose)


def _numbers(version: str) -> tuple[int, ...]:
    """Return the numbers of a version: (1, 0, 0) for 1.0.0a1."""
    numbers = (re.match(r"\d+", part) for part in version.split("."))
    return tuple(int(number[0]) for number in numbers if number)


def __getattr__(name: str) -> Any:
    """Return ``__version__``, which is looked up only when it is used."""
    if name in ("__version__", "VERSION"):
        from importlib.metadata import version  # takes longer than the rest of the import

        text = version("qam")
        return text if name == "__version__" else _numbers(text)
    if name == "aio":
        import qam.aio  # loads asyncio

        return qam.aio
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
