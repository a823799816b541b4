"""A web application with a proxy at module level, as gunicorn loads it before it forks."""

import os
from collections.abc import Callable, Iterable

from qam import QAMProxy

proxy = QAMProxy(os.environ["SERVER_ID"], os.environ["BROKER"], connect=False, timeout=60)
if os.environ.get("USE_IN_MASTER"):
    assert proxy.add(1, 2) == 3


def application(environ: dict[str, str], start_response: Callable[..., object]) -> Iterable[bytes]:
    """Answer with the sum of what the path names, and with the process that made the call."""
    a, b = map(int, environ["PATH_INFO"].strip("/").split("/"))
    result = f"{proxy.add(a, b)} {os.getpid()}"
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [result.encode()]
