"""What became of each call, as its client saw it: a line of JSON in the client's outcome file."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from qam import QAMException
from tests.chaos.calls import Call, answer_to

RIGHT = "right"
WRONG = "wrong"
RAISED_AS_IT_SHOULD = "raised as it should"
HUNG = "hung"
#: The outcomes that are none of an exception of the library; all others are its type's name.
NO_ERRORS = (RIGHT, WRONG, RAISED_AS_IT_SHOULD, HUNG)

_LONGEST_TEXT = 500


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a call; `executed` is what the library said about an error of its own."""

    token: str
    kind: str
    method: str
    outcome: str
    executed: str | None
    seconds: float
    text: str = ""

    def __str__(self) -> str:
        said = "" if self.executed is None else f", executed={self.executed}"
        text = f": {self.text}" if self.text else ""
        what = f"{self.kind} call of {self.method}()"
        return f"{what} ended after {self.seconds:.3f} s: {self.outcome}{said}{text}"

    def as_line(self) -> str:
        """The line of this outcome, with its end."""
        return json.dumps(asdict(self)) + "\n"


def of_value(call: Call, value: Any, seconds: float) -> Outcome:
    """The call returned `value`."""
    if call.method != "fail" and value == answer_to(call.token):
        return _outcome(call, RIGHT, seconds)
    return _outcome(call, WRONG, seconds, text=f"it returned {value!r}")


def of_exception(call: Call, error: BaseException, seconds: float) -> Outcome:
    """The call raised `error`: its method did, or the library, or it is somebody else's."""
    if isinstance(error, QAMException):
        return _outcome(call, type(error).__name__, seconds, error.executed, str(error))
    if call.method == "fail" and type(error) is ValueError and error.args == (call.token,):
        return _outcome(call, RAISED_AS_IT_SHOULD, seconds)
    return _outcome(call, WRONG, seconds, text=f"it raised {error!r}")


def of_nothing(call: Call, seconds: float) -> Outcome:
    """The call has not ended yet, though its time is long over."""
    return _outcome(call, HUNG, seconds)


def _outcome(
    call: Call, outcome: str, seconds: float, executed: str | None = None, text: str = ""
) -> Outcome:
    shortened = text[:_LONGEST_TEXT]
    return Outcome(call.token, call.kind, call.method, outcome, executed, seconds, shortened)


def read_outcomes(path: Path) -> list[Outcome]:
    """The outcomes in a file; none if the client has not come to make one."""
    if not path.exists():
        return []
    with path.open() as lines:
        return [Outcome(**json.loads(line)) for line in lines]
