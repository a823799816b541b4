"""Runs the loop of the tutorial, which waits for a callback, where greenlets stand for threads.

``python -m tests.support.greenlets gevent memory://name`` prints what it prints.
"""

import importlib
import sys

PATCHES = {"gevent": ("gevent.monkey", "patch_all"), "eventlet": ("eventlet", "monkey_patch")}


def patch(kind: str) -> None:
    """Let greenlets stand for threads; before anything else is imported."""
    module, function = PATCHES[kind]
    getattr(importlib.import_module(module), function)()


def run(url: str) -> None:
    """Run the program of the tutorial at another broker."""
    from pathlib import Path

    folder = Path(__file__).parents[2] / "docs/examples/tutorial"
    sys.path.insert(0, str(folder))
    program = (folder / "callback_states.py").read_text(encoding="utf-8")
    exec(program.replace("memory://warehouse", url), {"__name__": "__main__"})


if __name__ == "__main__":
    kind, url = sys.argv[1:]
    patch(kind)
    run(url)
