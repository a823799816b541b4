"""The address of one broker and the settings to connect to it."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from qam._broker.tls import TLS


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where one broker is, and as which user to connect; credentials have one for each host.

    :param host: its name or address; or ``memory://name`` for a broker inside this process.
    :param tls: the TLS settings; None for plain TCP.
    :param heartbeat: whole seconds between heartbeats.
    """

    host: str
    port: int
    vhost: str
    username: str
    password: str = field(repr=False)
    tls: TLS | None = field(repr=False)
    heartbeat: int

    @property
    def is_memory(self) -> bool:
        """True for the broker inside this process."""
        return self.host.startswith("memory://")

    def __str__(self) -> str:
        if self.is_memory:
            return self.host
        return f"{address(self.host, self.port)}, vhost {self.vhost!r}"


def common_user(endpoints: Iterable[Endpoint]) -> str | None:
    """Return as whom all *endpoints* are connected to; None if that differs."""
    users = {endpoint.username for endpoint in endpoints}
    return users.pop() if len(users) == 1 else None


def address(host: str, port: int) -> str:
    """Return host and port as one text; an address of version 6 is put into brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
