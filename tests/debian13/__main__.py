"""Runs the tests in Debian 13, with its Python 3.13 and its RabbitMQ 4.0; `tox run -e debian13`.

All tests once, and those that need a broker once more where a queue that is declared without a
type becomes a quorum queue.  The cluster is among them.  Arguments go to pytest, which then runs
what they say, in both ways.  `--suite unstable` takes another Debian, by the name of its suite.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from tests.debian13.root import install_dependencies, made, test_in, why_not

SUITE, QUEUE_TYPES = "trixie", ("classic", "quorum")
# As the rows `py` and `uncovered` of tox.ini run them.
_ELSEWHERE = "costly or greenlets or howto or web or signals"
_ALONE = f"not (watched or cluster or {_ELSEWHERE})"
_TOGETHER = f"(watched or cluster) and not ({_ELSEWHERE})"
_AT_ONCE = ["-n", "4", "--dist", "loadfile", "--no-loadscope-reorder"]


def main() -> int:
    """Run the tests twice; return 0 if all have passed."""
    options, for_pytest = _options()
    if why := why_not():
        print(f"not run in another Debian: {why}", file=sys.stderr)
        return 1
    try:
        root = made(options.suite, _cache())
        install_dependencies(root)
    except subprocess.CalledProcessError:
        print(
            "not run in another Debian: there is no root for it; why is said above",
            file=sys.stderr,
        )
        return 1
    codes = [
        test_in(root, arguments, {"QAM_TEST_QUEUE_TYPE": queue_type})
        for queue_type in ([options.queue_type] if options.queue_type else QUEUE_TYPES)
        for arguments in ([for_pytest] if for_pytest else all_tests(queue_type))
    ]
    return max(codes)


def _options() -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(prog="python -m tests.debian13", description=__doc__)
    parser.add_argument("--suite", default=SUITE, help="the name of the Debian")
    parser.add_argument("--queue-type", choices=QUEUE_TYPES, help="only where this is the default")
    return parser.parse_known_args()


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "qam-tests"


def all_tests(queue_type: str) -> list[list[str]]:
    """The arguments for each run of pytest; what needs no broker is the same with all queues."""
    alone = _ALONE if queue_type == "classic" else f"rabbitmq and {_ALONE}"
    together = _TOGETHER if queue_type == "classic" else f"rabbitmq and {_TOGETHER}"
    return [[*_AT_ONCE, "-m", alone], ["-n", "2", "--dist", "loadgroup", "-m", together]]


if __name__ == "__main__":
    sys.exit(main())
