"""How calls are made: what can be set for them beside their arguments."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from qam._common.checks import check_flag, check_timeout_or_none, check_wait
from qam._common.deadline import NO_END, Deadline
from qam._common.served_call import served_call
from qam._protocol.metadata import check_metadata

Metadata = Mapping[str, str] | Callable[[], Mapping[str, str]]


class CallOptions(NamedTuple):
    """What can be set for calls.  All calls that are made alike share one of these."""

    #: Seconds that a call may take; None for any time.
    timeout: float | None = None
    #: Texts by name that travel with the request, or what returns them for each call.
    metadata: Metadata | None = None
    #: Seconds for which a server that is not there is waited for.
    wait_for_server: float = 0.0
    #: Whether a call that a served method makes ends with the time of the call that is served.
    inherit_deadline: bool = True

    def changed(self, **changes: Any) -> "CallOptions":
        """Return these options with *changes*.

        :raises TypeError, ValueError: a value is wrong; the error names its option.
        """
        return self._replace(**{name: _CHECKS[name](value) for name, value in changes.items()})

    def deadline(self) -> Deadline:
        """Return when a call that begins now has to end."""
        served, own = served_call.get(), self.own_deadline()
        return served.limit(own) if served is not None and self.inherit_deadline else own

    def own_deadline(self) -> Deadline:
        """Return the same for a call that may outlive the method that makes it."""
        return NO_END if self.timeout is None else Deadline(self.timeout)

    def current_metadata(self) -> Mapping[str, str] | None:
        """Return the metadata of a call that is made now; runs code of the application.

        :raises TypeError, ValueError: it is no metadata.
        """
        metadata = self.metadata
        return check_metadata(metadata()) if callable(metadata) else metadata


def _check_metadata(value: object) -> Metadata | None:
    return value if value is None or callable(value) else check_metadata(value)


_CHECKS: dict[str, Callable[[Any], Any]] = {
    "timeout": check_timeout_or_none,
    "metadata": _check_metadata,
    "wait_for_server": lambda value: check_wait(value, "wait_for_server"),
    "inherit_deadline": lambda value: check_flag(value, "inherit_deadline"),
}
