"""What ends the process that builds it, where its class is trusted."""

import os
from typing import Any

#: With which the process ends.
STATUS = 77


class PoisonousState:
    """Ends a process by its state."""

    def __getstate__(self) -> Any:
        return {"what": "a state"}

    def __setstate__(self, state: Any) -> None:
        os._exit(STATUS)


class PoisonousConstructor:
    """Ends a process by its constructor."""

    def __init__(self, *args: Any) -> None:
        if args:
            os._exit(STATUS)

    def __reduce__(self) -> Any:
        return PoisonousConstructor, ("an argument",)
