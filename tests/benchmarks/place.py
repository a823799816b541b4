"""Where a contestant's server is: at a broker, or without one."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """A RabbitMQ, and the name under which the server is found there.

    A library without a broker has a free port instead, on which its server listens.
    """

    host: str
    port: int
    name: str
    username: str = "guest"
    password: str = "guest"
    free_port: int = 0

    @property
    def url(self) -> str:
        """The broker's URL, of the vhost /."""
        return f"amqp://{self.username}:{self.password}@{self.host}:{self.port}//"

    @property
    def url_of_pika(self) -> str:
        """The same for those who want the vhost's name quoted, as the URI specification does."""
        return self.url.removesuffix("//") + "/%2F"
