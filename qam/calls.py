"""Other ways to make a call than to wait for its result, and other settings for a call.

Each function takes a remote method, such as ``proxy.add`` or ``proxy.set_timeout(5).add``, before
its arguments; all keyword arguments are those of the remote method.

>>> from qam import QAMProxy, submit
>>> proxy = QAMProxy('qamserver')                                # doctest: +SKIP
>>> future = submit(proxy.add, 2, 3)                             # doctest: +SKIP
>>> future.result()                                              # doctest: +SKIP
5
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, ParamSpec, TypeVar, overload

from qam._client.call_options import CallOptions, Metadata
from qam._client.remote_names import _RemoteNames, caller_at, caller_of, with_other_options
from qam._common.checks import check_timeout
from qam._protocol.multicalls import MAX_CALLS, Waiting, multicall_params
from qam._protocol.requests import MULTICALL, PING
from qam.exceptions import QAMMethodNotFoundException, QAMSerializationException

__all__ = ["MultiCall", "ping", "send", "submit", "with_options"]

P = ParamSpec("P")
R = TypeVar("R")
Target = TypeVar("Target")


class _Unchanged:
    """Stands for an option that is not named."""


_UNCHANGED: Any = _Unchanged()


def with_options(
    target: Target,
    /,
    *,
    timeout: float | None = _UNCHANGED,
    metadata: Metadata | None = _UNCHANGED,
    wait_for_server: float = _UNCHANGED,
    inherit_deadline: bool = _UNCHANGED,
) -> Target:
    """Return an object that calls the methods of *target* with other options; does not wait.

    ``with_options(proxy, timeout=5).add(2, 3)``.  All its public names are remote methods.  It
    does not change *target*, whose options it has where no other is named.

    :param target: a :class:`~qam.qam_proxy.QAMProxy`, what its ``set_timeout`` or ``callback``
        returns, a :class:`qam.aio.AsyncProxy`, or what this function has returned.
    :param timeout: seconds that a call may take; None for any time.
    :param metadata: texts by name that travel with the request; or a function that returns them,
        which is called for each call, in its thread; or None.
    :param wait_for_server: seconds for which a call waits for a server that never was there.
    :param inherit_deadline: False for calls that may outlive the call that is being served,
        where a served method makes them.
    :raises TypeError, ValueError: an argument is wrong; the error names it.
    """
    named = {
        "timeout": timeout,
        "metadata": metadata,
        "wait_for_server": wait_for_server,
        "inherit_deadline": inherit_deadline,
    }
    changes = {name: value for name, value in named.items() if value is not _UNCHANGED}
    return with_other_options(target, changes)  # type: ignore[return-value]


def submit(method: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
    """Make a call, and return its future; does not wait.

    Its functions, as of ``add_done_callback``, run in an
    :class:`~qam.qam_proxy.ExecuteCallbackThread`.  ``cancel()`` succeeds as long as the request
    is not written, and then the method never runs; ``running()`` is true once it is written.

    :param method: a remote method, such as ``proxy.add``.
    :returns: the future.  It gets what the call would have returned or raised.  In a forked child
        the futures of the parent never end.
    :raises TypeError: *method* is no remote method.
    :raises QAMSerializationException: the arguments can't be encoded.
    :raises QAMClosedException: the proxy is closed, or this process was forked from that which
        made it.
    """
    proxy, options, name = caller_of(method, "submit")
    future: Future[R] = proxy._submit(options, name, args, kwargs)
    return future


def send(method: Callable[P, object], /, *args: P.args, **kwargs: P.kwargs) -> None:
    """Make a call for whose result nobody waits; block until the broker has the request.

    The broker keeps the request until a server takes it, however long that is.  What the method
    raises is logged at the server.

    :param method: a remote method, such as ``proxy.add``.  Its timeout bounds the wait for the
        broker, and not the method.
    :raises TypeError: *method* is no remote method.
    :raises QAMSerializationException: the arguments can't be encoded.
    :raises QAMServerNotFoundException: no server ever served that server_id.
    :raises QAMTimeoutException: the broker has not confirmed it in time; ``executed`` is ``"no"``
        if it was not written.
    :raises QAMConnectionException: the connection was lost before the broker confirmed it.
    :raises QAMClosedException: the proxy is closed.
    """
    proxy, options, name = caller_of(method, "send")
    proxy._send_one_way(options, name, args, kwargs)


def ping(target: object, /, *, timeout: float = 1.0) -> float:
    """Return how many seconds a server takes to answer; blocks for that.

    :param target: a :class:`~qam.qam_proxy.QAMProxy`, or what its ``set_timeout`` returns.
    :param timeout: seconds to wait for the answer.
    :raises QAMTimeoutException: there is none by then.
    :raises QAMException: as every call.
    :raises TypeError, ValueError: an argument is wrong.
    """
    proxy = caller_at(target, "ping")
    options = CallOptions(timeout=check_timeout(timeout))
    began = time.monotonic()
    with suppress(QAMMethodNotFoundException):  # a server of 0.2.x, which has answered
        proxy._send(options, PING, (), {})
    return time.monotonic() - began


class MultiCall(_RemoteNames):
    """Makes several calls with one request, as :class:`xmlrpc.client.MultiCall` does.

    ::

        calls = MultiCall(proxy)
        calls.add(7, 3)
        calls.subtract(7, 3)
        for result in calls():
            print(result)

    One worker of the server runs them one after the other.  They have one timeout, and what is
    not begun by then does not run.  If their server dies, another one runs them again if all
    of them are idempotent.

    :param target: a :class:`~qam.qam_proxy.QAMProxy`, what its ``set_timeout`` returns, or what
        :func:`with_options` returns for these.
    :raises TypeError: *target* is none of these.
    """

    def __init__(self, target: object, /) -> None:
        self._proxy = caller_at(target, "MultiCall")
        self._options = target._options  # type: ignore[attr-defined]
        self._calls: list[Waiting] = []

    def _send(
        self,
        options: CallOptions,
        method_name: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        self._calls.append((method_name, args, kwargs))

    def __call__(self) -> "Results":
        """Make the calls; wait for their results.

        :returns: the results, in order.  One that failed raises its exception when it is reached.
        :raises ValueError: there are more than 1,000 calls.
        :raises QAMException: as every call; a server of 0.2.x has no such method.
        """
        if len(self._calls) > MAX_CALLS:
            raise ValueError(f"a MultiCall has at most {MAX_CALLS} calls, not {len(self._calls)}")
        if not self._calls:
            return Results([], self._proxy)
        params = multicall_params(self._calls)
        packed = self._proxy._send(self._options, MULTICALL, params, {})
        if not isinstance(packed, list) or len(packed) != len(self._calls):
            raise QAMSerializationException(
                "the server returned something else than a result for each call", executed="yes"
            )
        return Results(packed, self._proxy)

    def __repr__(self) -> str:
        return f"<MultiCall of {len(self._calls)} calls on {self._proxy!r}>"


class Results(Sequence[Any]):
    """The results of a :class:`MultiCall`; to reach one that failed raises its exception."""

    def __init__(self, packed: list[Any], proxy: Any) -> None:
        self._packed = packed
        self._proxy = proxy

    def __len__(self) -> int:
        return len(self._packed)

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> "Results": ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return Results(self._packed[index], self._proxy)
        return self._proxy.consumer_thread.result_in(self._packed[index])

    def __repr__(self) -> str:
        return f"<results of {len(self)} calls>"
