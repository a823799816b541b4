"""What surrounds the methods of a server: who may call them, what is noted of them."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from qam._server.call import Call
from qam._server.current_call import CurrentCall, view_of
from qam._server.offered_methods import check_called_plainly

#: Gets the call and what goes on with it; returns or raises what its caller gets.
Middleware = Callable[[CurrentCall, Callable[[], Any]], Any]


def check_middleware(value: object) -> tuple[Middleware, ...]:
    """Return *value* as a tuple; raise TypeError unless it is a list of functions."""
    if not isinstance(value, Iterable):
        raise TypeError(f"middleware must be a list of functions, not {value!r}")
    middleware = tuple(value)
    for each in middleware:
        if not callable(each):
            raise TypeError(f"middleware must be functions of (call, proceed), not {each!r}")
        check_called_plainly(each, f"middleware: {each!r}")
    return middleware


def surrounded(
    method: Callable[[], Any], call: Call, middleware: Sequence[Middleware]
) -> Callable[[], Any]:
    """Return what runs *method* inside *middleware*, whose first is the outermost."""
    seen = view_of(call)
    for each in reversed(middleware):
        method = partial(each, seen, method)
    return method
