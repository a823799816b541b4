"""How the stub that `qam methods calc --stub` has written is used; mypy and pyright check it.

`qam methods calc --stub > calc_api.py` wrote `calc_api.py` from the server of `calc.py`.
"""

# pyright: basic, reportInvalidCast=false, reportUnnecessaryTypeIgnoreComment=true

from concurrent.futures import Future
from typing import assert_type, cast

from calc_api import AsyncCalc, Calc

from qam import QAMProxy, aio, submit


def client() -> None:
    """Make calls whose types are known."""
    with QAMProxy("calc") as proxy:
        calc = cast(Calc, proxy)
        assert_type(calc.add(2, 3), int)
        assert_type(submit(calc.divide, 1, b=2), Future[float])

        calc.add("2")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        calc.nap()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


async def async_client() -> None:
    """The same for asyncio."""
    async with aio.connect("calc") as proxy:
        calc = cast(AsyncCalc, proxy)
        assert_type(await calc.add(2, 3), int)
