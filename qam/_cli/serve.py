"""The command ``qam serve``: serves a module, an instance, or a server that a module makes."""

import inspect
import logging
import signal
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import ModuleType
from typing import Any

from qam._cli import exits
from qam._cli.exits import Mistake
from qam._cli.options import (
    SERIALIZERS,
    common,
    count,
    credentials_of,
    seconds,
    seconds_or_0,
    server_id,
)
from qam._cli.target import Target, load, parse
from qam._server.exposed import exposed_methods, functions_of
from qam._server.offered_methods import Method, check_instance, public_methods
from qam.exceptions import QAMClosedException, QAMConnectionException
from qam.qam_server import QAMServer

_THREADS, _SERIALIZER, _WAIT, _GRACE = 32, "pickle", 30.0, 30.0

_HINT = (
    "; the public functions that a module defines or its __all__ names can be served, and the "
    "public methods of an instance, or those of them that qam.expose marks"
)

log = logging.getLogger("qam.serve")


def add_to(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "serve",
        parents=[common()],
        help="serve a module, or an instance in one",
        description="Serve the functions of a module, the methods of an instance in it, or a "
        "QAMServer that it makes, until SIGTERM or Ctrl-C. A second signal ends the process at "
        "once.",
    )
    parser.add_argument(
        "target",
        metavar="TARGET",
        help="module, module:instance, module:server, or module:factory(), whose result is served",
    )
    # Without defaults, so that those can be told from given ones that a server can't have.
    parser.add_argument(
        "--server-id", metavar="ID", type=server_id, help="by default the name of the module"
    )
    parser.add_argument(
        "--threads",
        metavar="N",
        type=count,
        help=f"how many methods run at once, at most; {_THREADS} by default",
    )
    parser.add_argument("--serializer", choices=SERIALIZERS, help=f"{_SERIALIZER} by default")
    parser.add_argument(
        "--trust",
        metavar="NAME",
        action="append",
        help="a module or class whose instances requests may bring; may be given several times",
    )
    parser.add_argument(
        "--wait",
        metavar="SECONDS",
        type=seconds_or_0,
        help=f"how long to wait for a broker that can't be reached; {_WAIT:g} by default",
    )
    parser.add_argument(
        "--grace",
        metavar="SECONDS",
        type=seconds,
        default=_GRACE,
        help=f"how long running methods may take at the end; {_GRACE:g} by default",
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="log each call, too")
    parser.set_defaults(run=run)


def run(options: Namespace) -> int:
    """Serve until a signal comes; return the exit code.

    :raises Mistake: the target is wrong, or an option.
    :raises QAMConnectionException: the broker can't be reached, or refuses the connection.
    """
    target = parse(options.target)
    thing = load(target)
    _show_log(options.verbose)
    server = _server_of(thing, target, options)
    try:
        with server, _without_keyboard_interrupt():
            server.serve(stop_on=[signal.SIGTERM, signal.SIGINT], close_timeout=options.grace)
    except QAMClosedException as error:
        raise Mistake(f"{error}; --traceback shows it", exits.FAILED) from error
    except RuntimeError as error:
        raise Mistake(f"{error}; {options.target} must not start it") from error
    return exits.OK


@contextmanager
def _without_keyboard_interrupt() -> Iterator[None]:
    """Let a second Ctrl-C end the process at once, as a second SIGTERM does."""
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _show_log(verbose: bool) -> None:
    """Show the log on stderr, unless the target has set up another one."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    qam = logging.getLogger("qam")
    if verbose:
        qam.setLevel(logging.DEBUG)
    elif qam.level == logging.NOTSET:
        qam.setLevel(logging.INFO)


# --- the server -----------------------------------------------------------------------------


def _server_of(thing: Any, target: Target, options: Namespace) -> QAMServer:
    if isinstance(thing, QAMServer):
        _refuse_options(options)
        return thing
    methods = _methods_of(thing, options.target)
    server = _new_server(target, options)
    try:
        for name, method in methods.items():
            server.register_function(method, name)
    except (TypeError, ValueError) as error:
        raise Mistake(f"{options.target}: {error}") from error
    return server


def _refuse_options(options: Namespace) -> None:
    """Raise Mistake if an option is given that the server of a target has settled itself."""
    names = ["server_id", "broker", "threads", "serializer", "trust", "wait"]
    if given := [
        f"--{name.replace('_', '-')}" for name in names if getattr(options, name) is not None
    ]:
        raise Mistake(
            f"{options.target} is a QAMServer, which its module has made; leave out "
            f"{', '.join(given)}, and pass that there"
        )


def _new_server(target: Target, options: Namespace) -> QAMServer:
    make = partial(
        QAMServer,
        credentials=credentials_of(options),
        server_id=options.server_id or target.module,
        max_workers=options.threads or _THREADS,
        serializer=options.serializer or _SERIALIZER,
        trusted=options.trust or (),
    )
    try:
        return _made(make, _WAIT if options.wait is None else options.wait)
    except (TypeError, ValueError, ImportError) as error:
        by_trust = f"--trust {' '.join(options.trust)}: " if options.trust else ""
        raise Mistake(f"{by_trust}{error}") from error


def _made(make: Callable[..., QAMServer], wait: float) -> QAMServer:
    """Return what *make* makes, also if the broker can be reached only some seconds later."""
    try:
        return make()
    except QAMConnectionException as error:
        if error.refused or not wait:
            raise
        log.warning("%s; it is tried again for %g s", error, wait)
    return make(wait_for_broker=wait)


# --- what it offers -------------------------------------------------------------------------


def _methods_of(thing: Any, target: str) -> dict[str, Method]:
    """Return the methods that *thing* offers, by their own names.

    :raises Mistake: there are none.
    """
    if inspect.isroutine(thing):
        module = target.partition(":")[0]
        raise Mistake(
            f"{target} is a function; {module} alone serves all functions of the module, and "
            f"'{target}()' serves what this one returns"
        )
    if type(thing).__module__ == "builtins" and not isinstance(thing, ModuleType):
        raise Mistake(
            f"{target} has the type {type(thing).__name__}; a module, an instance of a class of "
            "yours or a QAMServer can be served"
        )
    try:
        if isinstance(thing, ModuleType):
            return {name: method for name, (method, _) in functions_of(thing).items()}
        check_instance(thing, target)
        marked = exposed_methods(thing)
        return {name: method for name, (method, _) in marked.items()} or public_methods(thing)
    except (TypeError, ValueError) as error:
        raise Mistake(f"{target}: {error}{_HINT}") from error
