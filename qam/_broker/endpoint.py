"""The address of one broker and the settings to connect to it."""

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


def address(host: str, port: int) -> str:
    """Return host and port as one text; an address of version 6 is put into brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
