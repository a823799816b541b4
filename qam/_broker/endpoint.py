"""One broker, as connections are opened to it."""

from dataclasses import dataclass, field

from qam._broker.tls import TLS


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where one broker is, and as whom to connect: what credentials come to for each host.

    :param host: its name or address; or ``memory://name`` for a broker inside this process.
    :param tls: how connections are secured; None for plain TCP.
    :param heartbeat: whole seconds.
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
        return self.host if self.is_memory else f"{self.host}:{self.port}, vhost {self.vhost!r}"
