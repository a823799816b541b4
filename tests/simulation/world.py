"""What all parts of a story share: the time, the broker, and the journal."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from qam._broker.messages import Publish
from qam._protocol.entities import siblings_binding
from tests.simulation.broker import ModelBroker
from tests.simulation.virtual import BEGINNING, Schedule, drawn

SERVER_ID = "service"


class Entry(NamedTuple):
    """Something that happened."""

    at: float
    what: str
    who: str
    token: str = ""
    more: str = ""

    def __str__(self) -> str:
        parts = (self.who, self.what, self.token, self.more)
        return f"{self.at - BEGINNING:9.4f}  {' '.join(filter(None, parts))}"


@dataclass
class World:
    """One story, while it is played."""

    seed: object
    calm: bool = False
    schedule: Schedule = field(default_factory=Schedule)
    journal: list[Entry] = field(default_factory=list)
    #: Opens a connection for the owner whose turn it is.
    connect: Callable[[], Any] = field(default=lambda: None)
    broker: ModelBroker = field(init=False)

    def __post_init__(self) -> None:
        self.broker = ModelBroker(self.schedule, drawn(self.seed, "broker"), self.calm)

    def note(self, what: str, who: str, token: str = "", more: str = "") -> None:
        self.journal.append(Entry(self.schedule.now, what, who, token, more))

    def traffic(self, name: str) -> Callable[[str, Publish, bool], None]:
        """Return what takes down the requests and replies that pass a connection."""
        words_go_to = siblings_binding(SERVER_ID, "").exchange

        def tell(what: str, message: Publish, redelivered: bool) -> None:
            if message.route.exchange == words_go_to:
                return
            headers = ", ".join(f"{key}={value}" for key, value in _headers(message).items())
            marks = ", ".join(filter(None, ("redelivered" if redelivered else "", headers)))
            token = str(message.properties.get("correlation_id"))
            self.note(what, name, token, f"({marks})" if marks else "")

        return tell


def _headers(message: Publish) -> dict[str, Any]:
    headers = message.properties.get("headers")
    return headers if isinstance(headers, dict) else {}
