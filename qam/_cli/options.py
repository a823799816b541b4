"""The options that several commands have, and what is made of them."""

import os
import re
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable
from typing import TypeVar

from qam._cli.exits import Mistake
from qam._common.checks import check_count, check_entity_name, check_timeout, check_wait
from qam.amqp_credentials import AMQPCredentials
from qam.qam_proxy import QAMProxy

#: The environment variable that says where the broker is, unless --broker does.
SERIALIZERS = ("pickle", "json", "msgpack")

Number = TypeVar("Number", int, float)

BROKER_VARIABLE = "QAM_BROKER_URL"


def common(broker: str = f"by default that of {BROKER_VARIABLE}, or localhost") -> ArgumentParser:
    """Return a parser of the options that each command has.

    :param broker: what the help says of the default of --broker.
    """
    parser = ArgumentParser(add_help=False)
    parser.add_argument(
        "--broker",
        metavar="URL",
        help="amqp://user:password@host:port/vhost, or amqps://...; several with spaces between "
        f"them are the nodes of a cluster; {broker}",
    )
    parser.add_argument(
        "--traceback", action="store_true", help="show the traceback of an error too"
    )
    return parser


def add_id(parser: ArgumentParser) -> None:
    """Add the argument that names the server to call."""
    parser.add_argument("id", metavar="ID", type=server_id, help="the server_id of the server")


def add_serializer(parser: ArgumentParser) -> None:
    """Add the option for the serializer of the server."""
    parser.add_argument(
        "--serializer", choices=SERIALIZERS, default="pickle", help="that of the server"
    )


def add_timeout(parser: ArgumentParser, default: float) -> None:
    """Add the option for the seconds that a call may take."""
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=seconds,
        default=default,
        help=f"how long to wait for an answer; {default:g} by default",
    )


# --- values ---------------------------------------------------------------------------------


def server_id(text: str) -> str:
    """Return *text*, if it can be a server_id."""
    try:
        check_entity_name(text, "it")
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from None
    return text


def seconds(text: str) -> float:
    """Return the positive number of seconds that *text* is."""
    return _checked(text, lambda: check_timeout(float(text)), "a positive number of seconds")


def seconds_or_0(text: str) -> float:
    """Return the number of seconds that *text* is, also 0."""
    return _checked(text, lambda: check_wait(float(text), ""), "a number of seconds")


def count(text: str) -> int:
    """Return the whole number from 1 on that *text* is."""
    return _checked(text, lambda: check_count(int(text), ""), "a whole number, 1 or more")


def count_or_0(text: str) -> int:
    """Return the whole number from 0 on that *text* is."""
    return _checked(text, lambda: check_count(int(text), "", least=0), "a whole number, 0 or more")


def _checked(text: str, check: Callable[[], Number], what: str) -> Number:
    try:
        return check()
    except ValueError:
        raise ArgumentTypeError(f"must be {what}, not {text!r:.100}") from None


# --- the broker -----------------------------------------------------------------------------


def hosts_in(url: str) -> str | list[str]:
    """Return the URL, or the URLs with spaces between them, as proxies and servers take them."""
    hosts = url.split()
    return hosts if len(hosts) > 1 else url.strip()


def credentials_of(options: Namespace) -> AMQPCredentials:
    """Return where the broker is: --broker, else QAM_BROKER_URL, else localhost.

    :raises Mistake: the URL is wrong.
    """
    source, url = "--broker", options.broker
    if url is None:
        source, url = BROKER_VARIABLE, os.environ.get(BROKER_VARIABLE) or "localhost"
    try:
        return AMQPCredentials(hosts_in(url)).resolved()
    except (TypeError, ValueError) as error:
        text = re.sub("^hostname", source, str(error))
        raise Mistake(text) from error


def open_proxy(options: Namespace, server_id: str, timeout: float | None) -> QAMProxy:
    """Return a new proxy of *server_id*; waits until it is connected.

    :raises Mistake: an option is wrong.
    :raises QAMConnectionException: the broker can't be reached, or refuses the connection.
    """
    credentials = credentials_of(options)
    try:
        return QAMProxy(
            server_id, credentials=credentials, serializer=options.serializer, timeout=timeout
        )
    except (TypeError, ValueError, ImportError) as error:
        raise Mistake(str(error)) from error
