"""Runs the server and the callback client of the README where greenlets stand for threads.

``python -m tests.support.greenlets gevent memory://name server_id`` prints what the client prints.
"""

import importlib
import sys

PATCHES = {"gevent": ("gevent.monkey", "patch_all"), "eventlet": ("eventlet", "monkey_patch")}


def patch(kind: str) -> None:
    """Let greenlets stand for threads; before anything else is imported."""
    module, function = PATCHES[kind]
    getattr(importlib.import_module(module), function)()


def run(url: str, server_id: str) -> None:
    """Run both blocks, at another broker and under another id."""
    import re
    import threading
    from pathlib import Path

    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    readme = readme.replace('"localhost"', repr(url)).replace('"qamserver"', repr(server_id))
    blocks = re.findall(r"^```python\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    [server] = [block for block in blocks if ".serve()" in block]
    [client] = [block for block in blocks if "get_callback_state" in block]

    names = {"__name__": "server"}
    serving = threading.Thread(target=exec, args=[server.replace("serve()", "start()"), names])
    serving.start()
    serving.join()
    try:
        exec(client, {"__name__": "client"})
    finally:
        names["server"].close()  # type: ignore[attr-defined]


if __name__ == "__main__":
    kind, url, server_id = sys.argv[1:]
    patch(kind)
    run(url, server_id)
