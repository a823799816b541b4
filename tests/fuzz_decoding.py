"""Feeds decoders with what atheris finds out to be interesting, until it is stopped.

``tox run -e fuzz -- -max_total_time=600`` (all of libFuzzer's options work). It ends with a
traceback and the message in a file if a message leads to anything but a value or an ordinary
exception, runs or imports something, is a pickle that CPython takes for something else, or takes
more memory or time than the limits say.
"""

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["qam", "pickle"]):
    from tests.support import fuzz_targets

# What is instrumented takes a hundred times as long; a message may take 0.1 s or so without that.
LIMITS = ["-rss_limit_mb=2048", "-timeout=60", f"-max_len={fuzz_targets.MAX_LENGTH}"]


def main() -> None:
    with tempfile.TemporaryDirectory() as corpus:
        for number, seed in enumerate(fuzz_targets.seeds()):
            Path(corpus, f"seed-{number}").write_bytes(seed)
        atheris.Setup([sys.argv[0], *LIMITS, *sys.argv[1:], corpus], fuzz_targets.receive)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
