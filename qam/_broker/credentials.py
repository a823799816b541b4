"""The credentials that a user passes: where the broker is, and as which user to connect."""

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from functools import cached_property
from urllib.parse import urlsplit

from kombu.utils.url import maybe_sanitize_url, parse_url

from qam._broker.endpoint import Endpoint, address
from qam._broker.tls import TLS, TLSOption, check_tls_option, make_tls
from qam._common.checks import check_heartbeat

_PORT, _TLS_PORT = 5672, 5671
_USER, _PASSWORD, _VHOST = "guest", "guest", "/"  # RabbitMQ's own defaults
_BESIDE_A_URL = {"port": _PORT, "username": _USER, "password": _PASSWORD, "vhost": _VHOST}

#: Seconds between heartbeats by default.
HEARTBEAT = 10


@dataclass(frozen=True, repr=False)
class AMQPCredentials:
    """The data needed to open a connection to the broker.  Opens no connection itself.

    :param hostname: name or address of the broker, ``host``, ``host:port`` or ``[::1]:port``; or
        a whole URL:
        ``amqp://user:password@host:port/vhost``, ``amqps://…`` (TLS), or ``memory://name``
        for a broker inside this process.  Or a list of names or URLs, the nodes of a
        cluster: when one is lost, the next one is tried.
    :param port: the broker's AMQP port.
    :param username: the user to connect as.
    :param password: the user's password; never shown by ``repr``.
    :param vhost: the virtual host.
    :param ssl: True for TLS, verified against the system's authorities and the host name;
        or an :class:`ssl.SSLContext`; or a dict (``{}`` means the same as True) of
        ``ca_certs`` (a file of authorities, in place of the system's), ``certfile``,
        ``keyfile`` and ``password`` (the client's own certificate), ``ciphers``,
        ``server_hostname`` (the name in the certificate, if not the host's), and, to
        verify less, ``check_hostname=False`` or ``cert_reqs=ssl.CERT_NONE``.
    :param heartbeat: whole seconds between heartbeats, unless the broker demands a shorter
        interval.  The connection counts as lost if nothing comes for two intervals.
    :raises TypeError: an argument has the wrong type.
    :raises ValueError: *hostname* is an empty list or no host name, *port* or *heartbeat* is out
        of its range, or *ssl* has an unknown key.  The proxy or server that gets the credentials
        also refuses a wrong URL, and a URL beside another port, username, password or vhost.
    """

    hostname: str | Sequence[str] = "localhost"
    port: int = _PORT
    username: str = _USER
    password: str = _PASSWORD
    vhost: str = _VHOST
    ssl: TLSOption = False
    heartbeat: int = HEARTBEAT

    def __post_init__(self) -> None:
        if not isinstance(self.hostname, (str, list, tuple)):
            _check_host(self.hostname)
        if not isinstance(self.hostname, str):
            # A copy, because the caller may change the list.
            object.__setattr__(self, "hostname", tuple(self.hostname))
        if not self._hosts:
            raise ValueError("hostname is an empty list; it must have at least one host")
        for host in self._hosts:
            _check_host(host)
        self._lower_schemes()
        check_heartbeat(self.heartbeat)
        if isinstance(self.port, bool) or not isinstance(self.port, int):
            raise TypeError(f"port must be a whole number, not {self.port!r}")
        if not 0 < self.port < 65536:
            raise ValueError(f"port must be 1 to 65535, not {self.port!r}")
        for name in ("username", "password", "vhost"):
            if not isinstance(getattr(self, name), str):
                raise TypeError(f"{name} must be a str")
        check_tls_option(self.ssl)

    def _lower_schemes(self) -> None:
        hosts = [_with_lower_scheme(host) for host in self._hosts]
        hostname = hosts[0] if isinstance(self.hostname, str) else tuple(hosts)
        object.__setattr__(self, "hostname", hostname)

    @property
    def _hosts(self) -> tuple[str, ...]:
        return (self.hostname,) if isinstance(self.hostname, str) else tuple(self.hostname)

    @property
    def is_memory(self) -> bool:
        """True for the broker inside this process."""
        return self._hosts[0].startswith("memory://")

    @property
    def _has_tls(self) -> bool:
        # An empty dict stands for TLS, too.
        return self.ssl is not None and self.ssl is not False

    @cached_property
    def tls(self) -> TLS | None:
        """The TLS settings of connections, made once; None for plain TCP.

        :raises ValueError: a file that ``ssl`` names can't be loaded.
        """
        return make_tls(self.ssl)

    def __repr__(self) -> str:
        shown = [_shown(host) for host in self._hosts]
        hostname = shown[0] if isinstance(self.hostname, str) else shown
        # Not the value of ssl, which may hold a password.
        return (
            f"AMQPCredentials(hostname={hostname!r}, port={self.port}, "
            f"username={self.username!r}, vhost={self.vhost!r}, ssl={self._has_tls})"
        )

    def __str__(self) -> str:
        if not isinstance(self.hostname, str):
            return " or ".join(map(str, self.endpoints()))
        if "://" in self.hostname:
            return _shown(self.hostname)
        return f"{address(self.hostname, self.port)}, vhost {self.vhost!r}"

    def resolved(self) -> "AMQPCredentials":
        """Return credentials with the URL in *hostname* split into its parts.

        :returns: itself if *hostname* is no URL, or a list.
        :raises ValueError: a URL is wrong, or stands beside another port, username, password or
            vhost; or a file that ``ssl`` names can't be loaded.
        """
        self.endpoints()  # for its errors
        return self._without_url() if isinstance(self.hostname, str) else self

    def endpoints(self) -> tuple[Endpoint, ...]:
        """Return the endpoints to connect to, in the order in which they are tried.

        :raises ValueError: as :meth:`resolved` does.
        """
        if isinstance(self.hostname, str):
            return (self._without_url()._endpoint(),)
        each_alone = [replace(self, hostname=host) for host in self.hostname]
        endpoints = tuple(each._without_url()._endpoint() for each in each_alone)
        if len(endpoints) > 1 and any(endpoint.is_memory for endpoint in endpoints):
            raise ValueError("hostname: a memory:// broker can't be one of several hosts")
        return endpoints

    def _endpoint(self) -> Endpoint:
        """Return the endpoint of *hostname*, which is one host name or address here."""
        return Endpoint(
            host=str(self.hostname),
            port=self.port,
            vhost=self.vhost,
            username=self.username,
            password=self.password,
            tls=self.tls,
            heartbeat=self.heartbeat,
        )

    def _without_url(self) -> "AMQPCredentials":
        hostname = str(self.hostname)
        if "://" not in hostname:
            return self._without_port(hostname)
        scheme = hostname.partition("://")[0]
        if scheme not in ("amqp", "amqps", "memory"):
            raise ValueError(
                f"hostname: the scheme {scheme}:// is not supported; use amqp://, amqps:// or memory://"
            )
        self._refuse_a_second_answer(scheme)
        return self if scheme == "memory" else self._from_url(hostname, scheme)

    def _without_port(self, hostname: str) -> "AMQPCredentials":
        found = _HOST_AND_PORT.fullmatch(hostname)
        if found is None:
            raise ValueError(f"hostname: {hostname!r} needs a port number after the ':'")
        name, port = found["address"] or found["name"], found["port"]
        if name == hostname:
            return self
        return replace(self, hostname=name, port=self.port if port is None else int(port))

    def _refuse_a_second_answer(self, scheme: str) -> None:
        for name, default in _BESIDE_A_URL.items():
            if getattr(self, name) != default:
                raise ValueError(
                    f"hostname is a URL ({scheme}://…), so {name} must be a part of it"
                )

    def _from_url(self, hostname: str, scheme: str) -> "AMQPCredentials":
        _check_url(hostname, scheme)
        url = parse_url(hostname)
        return replace(
            self,
            hostname=url["hostname"] or "localhost",
            port=url["port"] or (_TLS_PORT if scheme == "amqps" else _PORT),
            username=url["userid"] or _USER,
            password=url["password"] or _PASSWORD,
            vhost=url["virtual_host"] or _VHOST,
            ssl=self.ssl if self._has_tls else scheme == "amqps",
        )


def credentials_of(credentials: AMQPCredentials | None, beside: AMQPCredentials) -> AMQPCredentials:
    """Return the credentials that a proxy or server was given: *credentials*, or those *beside*.

    :param beside: made of the single arguments.
    :raises TypeError: *credentials* are no AMQPCredentials, or single arguments stand beside them.
    :raises ValueError: as :meth:`AMQPCredentials.resolved` does.
    """
    if credentials is None:
        return beside.resolved()
    if not isinstance(credentials, AMQPCredentials):
        kind = type(credentials).__name__
        raise TypeError(f"credentials must be AMQPCredentials, not {kind}")
    default = AMQPCredentials()
    names = [each.name for each in fields(AMQPCredentials)]
    if twice := [name for name in names if getattr(beside, name) != getattr(default, name)]:
        raise TypeError(f"credentials: {', '.join(twice)} can't be passed besides")
    return credentials.resolved()


_HOST_AND_PORT = re.compile(
    r"(\[(?P<address>[^]]+)\]|(?P<name>[^]:[]+|[^][]*:[^][]*:[^][]*))(:(?P<port>[0-9]+))?",
    re.DOTALL,
)
_SEVERAL = "several hosts are a list, as hostname=['one', 'two']"
_QUOTE = (
    "special characters in the user name, password or vhost have to be quoted, "
    "as urllib.parse.quote(password, safe='') does"
)


def _check_host(host: object) -> None:
    # Only the type of a wrong value is shown: the value may hold a password.
    shown = type(host).__name__ if host != "" else "an empty text"
    if not isinstance(host, str) or not host:
        raise TypeError(f"hostname must be a host name or a URL, or a list of them, not {shown}")
    if host != host.strip() or not host.isprintable():
        raise ValueError("hostname has a space or a line break at its end, or a control character")
    if "://" in host:
        return
    if set(host) & set("@/?#"):
        raise ValueError(
            "hostname must be a host name, or a URL that starts with amqp:// or amqps://; "
            "a host name contains no '@', '/', '?' or '#'"
        )
    if set(host) & set(";,"):
        raise ValueError(f"hostname: a host name contains no ';' or ','; {_SEVERAL}")
    if " " in host:
        raise ValueError("hostname: a host name contains no space")


def _with_lower_scheme(host: str) -> str:
    scheme, colon, rest = host.partition("://")
    return f"{scheme.lower()}{colon}{rest}" if colon else host


def _check_url(url: str, scheme: str) -> None:
    """Raise ValueError, which shows no part of *url*, unless it is an AMQP URL."""
    authority, beyond = _authority(url)
    place = authority.rpartition("@")[2]
    one_place = "@" in beyond or not set(place) & set(";,")
    if not one_place or _ANOTHER_URL.search(authority + beyond):
        raise ValueError(f"hostname: a URL has one host; {_SEVERAL}")
    if _is_unquoted(url):
        raise ValueError(
            f"hostname: in the {scheme}:// URL an '@' follows a '/', '?' or '#', "
            f"or a '[' is no part of the host; {_QUOTE}"
        )
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError(f"hostname: the {scheme}:// URL has no valid port, or: {_QUOTE}") from None
    if port == 0:
        raise ValueError(f"hostname: the port in the {scheme}:// URL must be 1 to 65535, not 0")
    if parts.query or parts.fragment:
        raise ValueError(
            f"hostname: nothing may follow the vhost in the {scheme}:// URL; pass other "
            f"settings, such as heartbeat, as arguments; {_QUOTE}"
        )


_ANOTHER_URL = re.compile(r"[;,]\s*\w+://")


def _authority(url: str) -> tuple[str, str]:
    """Return user and host of *url*, and what is behind them."""
    rest = url.partition("://")[2]
    end = re.search("[/?#]", rest)
    return (rest, "") if end is None else (rest[: end.start()], rest[end.start() :])


def _is_unquoted(url: str) -> bool:
    """Return True if special characters in user name, password or vhost were not quoted."""
    authority, beyond = _authority(url)
    user = authority.rpartition("@")[0]
    return "@" in beyond or bool(set(user) & set("[]"))


def _shown(host: str) -> str:
    if host.startswith("memory://") or "://" not in host:
        return host
    if not _is_unquoted(host):  # else a part of the password might show
        with suppress(ValueError):  # it is no valid URL
            return str(maybe_sanitize_url(host))
    return f"{host.partition('://')[0]}://…"
