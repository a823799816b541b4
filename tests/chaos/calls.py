"""The calls that the clients make, and what each has to come back with."""

import hashlib
import random
from dataclasses import dataclass
from typing import Any

#: The methods of a server, and how often each is drawn.
METHODS = {"work": 14, "again": 3, "fail": 3}
#: The method that is declared idempotent, and may run this often.
IDEMPOTENT, IDEMPOTENT_RUNS = "again", 3

#: Seconds that each call has.
TIMEOUT = 60.0
#: Seconds after which a call that has not ended is hung: its timeout, and the time that a busy
#: machine may need to get round to it.
HUNG_AFTER = TIMEOUT + 15.0

_LONGEST_NAP = 0.2  # seconds
_LONG_WORK = (2.0, 10.0)  # seconds, from … to: long enough for several faults to hit it
_ONE_LONG_IN = 50


@dataclass(frozen=True, slots=True)
class Call:
    """One call: `token` is nobody else's, `kind` is sync or callback."""

    token: str
    kind: str
    method: str
    seconds: float

    @property
    def args(self) -> tuple[Any, ...]:
        """What the method is called with."""
        return (self.token,) if self.method == "fail" else (self.token, self.seconds)


def draw_call(draw: random.Random, token: str, kind: str) -> Call:
    """A call of some method, that takes some time there."""
    [method] = draw.choices(list(METHODS), weights=list(METHODS.values()))
    nap = draw.uniform(0.0, _LONGEST_NAP)
    is_long = draw.randrange(_ONE_LONG_IN) == 0
    return Call(token, kind, method, draw.uniform(*_LONG_WORK) if is_long else nap)


def answer_to(token: str) -> str:
    """What a method returns that was called with `token`: right for no other."""
    return hashlib.sha256(token.encode()).hexdigest()
