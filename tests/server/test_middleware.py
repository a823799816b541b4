"""What surrounds a method, by value."""

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from qam._broker.messages import Delivery
from qam._server.call import Call
from qam._server.current_call import CurrentCall
from qam._server.middleware import check_middleware, surrounded


@pytest.fixture
def call() -> Call:
    call = Call(Delivery(b"{}", 1), 1)
    call.method_name = "add"
    return call


def noting(name: str, notes: list[str]) -> Callable[..., Any]:
    def middleware(call: CurrentCall, proceed: Callable[[], Any]) -> Any:
        notes.append(f"{name} before {call.method}")
        result = proceed()
        notes.append(f"{name} after {result}")
        return f"{name}({result})"

    return middleware


def test_the_first_is_the_outermost(call: Call) -> None:
    notes: list[str] = []
    both = check_middleware([noting("outer", notes), noting("inner", notes)])

    assert surrounded(lambda: "result", call, both)() == "outer(inner(result))"
    assert notes == [
        *("outer before add", "inner before add"),
        *("inner after result", "outer after inner(result)"),
    ]


def test_one_that_does_not_go_on_keeps_the_method_from_running(call: Call) -> None:
    ran: list[str] = []
    around = surrounded(lambda: ran.append("method"), call, [lambda call, proceed: "cached"])
    assert around() == "cached"
    assert ran == []


async def coroutine(call: CurrentCall, proceed: Callable[[], Any]) -> None:
    proceed()


def generator(call: CurrentCall, proceed: Callable[[], Any]) -> Iterator[Any]:
    yield proceed()


async def both(call: CurrentCall, proceed: Callable[[], Any]) -> AsyncIterator[Any]:
    yield proceed()


@pytest.mark.parametrize(
    "wrong",
    [len, 5, None, "text", [5], ["text"], [coroutine], [generator], [both]],
    ids=["function", "number", "none", "text", "numbers", "texts", "async", "yields", "both"],
)
def test_only_a_list_of_plain_functions_will_do(wrong: Any) -> None:
    with pytest.raises(TypeError, match="middleware"):
        check_middleware(wrong)
