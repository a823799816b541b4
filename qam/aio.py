"""Calls for asyncio, by a proxy whose threads do the work; any number of event loops may use it.

>>> import qam.aio
>>> async def main():
...     async with qam.aio.connect('qamserver') as calc:
...         print(await calc.add(2, 3))
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from contextlib import asynccontextmanager, suppress
from typing import Any, ParamSpec, TypeVar

from qam._client.call_options import CallOptions
from qam._client.remote_names import _RemoteNames, caller_at, caller_of
from qam.qam_proxy import QAMProxy

__all__ = ["AsyncProxy", "call", "connect"]

P = ParamSpec("P")
R = TypeVar("R")


async def call(method: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
    """Make a call; wait for its result without blocking the event loop.

    If the task is cancelled, the wait ends at once.  Then the method does not run if its request
    was not written yet; otherwise it runs, and its result is dropped.

    :param method: a remote method of a :class:`~qam.qam_proxy.QAMProxy`, such as ``proxy.add``.
    :raises TypeError: *method* is no remote method.
    :raises Exception: whatever the call would raise in a thread.
    """
    proxy, options, name = caller_of(method, "call")
    result: R = await _outcome(proxy._submit(options, name, args, kwargs))
    return result


async def _outcome(future: Future[Any]) -> Any:
    # asyncio.wrap_future would log an error if the loop is closed before the outcome comes.
    loop = asyncio.get_running_loop()
    ended = loop.create_future()

    def end() -> None:
        if not ended.done():
            ended.set_result(None)

    def tell(_: Future[Any]) -> None:
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(end)

    future.add_done_callback(tell)
    try:
        await ended
    finally:
        future.cancel()  # does nothing once there is an outcome
    return future.result()


class AsyncProxy(_RemoteNames):
    """Calls the methods of a proxy from asyncio: ``await AsyncProxy(proxy).add(2, 3)``.

    Every public name is a remote method.  It owns nothing: close the proxy.

    :param target: a :class:`~qam.qam_proxy.QAMProxy`, or what its ``set_timeout`` or
        :func:`~qam.calls.with_options` returns.
    :raises TypeError: *target* is none of these.
    """

    def __init__(self, target: object, /) -> None:
        self._caller = caller_at(target, "AsyncProxy")
        self._options = target._options  # type: ignore[attr-defined]

    async def _send(
        self,
        options: CallOptions,
        method_name: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        return await _outcome(self._caller._submit(options, method_name, args, kwargs))

    def __repr__(self) -> str:
        return f"<AsyncProxy of {self._caller!r}>"


@asynccontextmanager
async def connect(*args: Any, **kwargs: Any) -> AsyncIterator[AsyncProxy]:
    """Connect a proxy; close it at the end of ``async with``.  Neither blocks the event loop.

    Takes the arguments of :class:`~qam.qam_proxy.QAMProxy`, and raises what that raises.
    """
    proxy = await asyncio.to_thread(QAMProxy, *args, **kwargs)
    try:
        yield AsyncProxy(proxy)
    finally:
        await asyncio.to_thread(proxy.close)
