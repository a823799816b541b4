"""Where the broker is, and as whom to connect."""

from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

from kombu.utils.url import maybe_sanitize_url, parse_url

from qam._tls import TLS, check_tls_option, make_tls

_PORT, _TLS_PORT = 5672, 5671
_USER, _PASSWORD, _VHOST = "guest", "guest", "/"  # RabbitMQ's own defaults
_BESIDE_A_URL = {"port": _PORT, "username": _USER, "password": _PASSWORD, "vhost": _VHOST}


@dataclass(frozen=True, repr=False)
class AMQPCredentials:
    """All that is needed to open a connection to the broker.

    :param hostname: name or address of the broker; or a whole URL: ``amqp://user:password@host:port/vhost``,
        ``amqps://…`` (TLS), or ``memory://name`` for a broker inside this process.
    :param port: the broker's AMQP port.
    :param username: who connects.
    :param password: their password; never shown by ``repr``.
    :param vhost: the virtual host.
    :param ssl: True for TLS, verified against the system's authorities and the host name;
        or an :class:`ssl.SSLContext`; or a dict, where ``{}`` is as good as True:
        ``ca_certs`` (a file of authorities, in place of the system's), ``certfile``,
        ``keyfile`` and ``password`` (one's own certificate), ``ciphers``,
        ``server_hostname`` (whom the certificate names, if not the host), and, to
        verify less, ``check_hostname=False`` or ``cert_reqs=ssl.CERT_NONE``.
    :raises ValueError: *hostname* is a URL of another scheme, or a URL beside a
        port, username, password or vhost of one's own; *ssl* has an unknown key.
    """

    hostname: str = "localhost"
    port: int = _PORT
    username: str = _USER
    password: str = _PASSWORD
    vhost: str = _VHOST
    ssl: Any = False

    def __post_init__(self) -> None:
        if not isinstance(self.hostname, str) or not self.hostname:
            # Of a wrong one only the type is shown: it may hold a password.
            raise TypeError(
                f"hostname must be a host name or a URL, not {type(self.hostname).__name__}"
            )
        if "://" not in self.hostname and set(self.hostname) & set("@/"):
            raise ValueError(
                "hostname must be a host name, or a URL that starts with amqp:// or amqps://; "
                "a name has no '@' or '/' in it"
            )
        if isinstance(self.port, bool) or not isinstance(self.port, int):
            raise TypeError(f"port must be a whole number, not {self.port!r}")
        if not 0 < self.port < 65536:
            raise ValueError(f"port must be 1 to 65535, not {self.port!r}")
        for name in ("username", "password", "vhost"):
            if not isinstance(getattr(self, name), str):
                raise TypeError(f"{name} must be a str")
        check_tls_option(self.ssl)

    @property
    def is_memory(self) -> bool:
        """True for the broker inside this process."""
        return self.hostname.startswith("memory://")

    @property
    def _has_tls(self) -> bool:
        # An empty dict is one too.
        return self.ssl is not None and self.ssl is not False

    @cached_property
    def tls(self) -> TLS | None:
        """How connections are secured, made once; None for plain TCP.

        :raises ValueError: a file that ``ssl`` names can't be loaded.
        """
        return make_tls(self.ssl)

    def __repr__(self) -> str:
        # Of ssl no more than that: it may hold a password.
        return (
            f"AMQPCredentials(hostname={self._shown_hostname()!r}, port={self.port}, "
            f"username={self.username!r}, vhost={self.vhost!r}, ssl={self._has_tls})"
        )

    def __str__(self) -> str:
        if "://" in self.hostname:
            return self._shown_hostname()
        return f"{self.hostname}:{self.port}, vhost {self.vhost!r}"

    def _shown_hostname(self) -> str:
        if self.is_memory or "://" not in self.hostname:
            return self.hostname
        scheme, _, rest = self.hostname.partition("://")
        if "@" not in rest.partition("/")[2]:  # else a password that was not quoted
            with suppress(ValueError):  # no URL after all
                return str(maybe_sanitize_url(self.hostname))
        return f"{scheme}://…"

    def resolved(self) -> "AMQPCredentials":
        """Return the same place with a URL taken apart; itself where there is none.

        :raises ValueError: the URL, or a file that ``ssl`` names, is of no use.
        """
        resolved = self._without_url()
        resolved.tls  # noqa: B018 - made here: its errors are the caller's
        return resolved

    def _without_url(self) -> "AMQPCredentials":
        if "://" not in self.hostname:
            return self
        scheme = self.hostname.partition("://")[0]
        if scheme not in ("amqp", "amqps", "memory"):
            raise ValueError(
                f"hostname: the scheme {scheme}:// is not supported; use amqp://, amqps:// or memory://"
            )
        self._refuse_a_second_answer(scheme)
        return self if scheme == "memory" else self._from_url(scheme)

    def _refuse_a_second_answer(self, scheme: str) -> None:
        for name, default in _BESIDE_A_URL.items():
            if getattr(self, name) != default:
                raise ValueError(f"hostname is a URL ({scheme}://…); {name} belongs into it")

    def _from_url(self, scheme: str) -> "AMQPCredentials":
        try:
            parts = urlsplit(self.hostname)
            parts.port  # noqa: B018 - raises for what is no port
        except ValueError:
            raise ValueError(f"hostname: the {scheme}:// URL has no valid port") from None
        if "@" in parts.path:
            raise ValueError(
                f"hostname: in the {scheme}:// URL an '@' follows a '/'; what is special in the "
                "user name, password or vhost has to be quoted, see urllib.parse.quote"
            )
        if parts.query or parts.fragment:
            raise ValueError(f"hostname: nothing may follow the vhost in the {scheme}:// URL")
        url = parse_url(self.hostname)
        return replace(
            self,
            hostname=url["hostname"] or "localhost",
            port=url["port"] or (_TLS_PORT if scheme == "amqps" else _PORT),
            username=url["userid"] or _USER,
            password=url["password"] or _PASSWORD,
            vhost=url["virtual_host"] or _VHOST,
            ssl=self.ssl if self._has_tls else scheme == "amqps",
        )
