"""Finds the programs of RabbitMQ and Erlang, and installs them where that is simple.

`python -m tests.support.install_rabbitmq` says nothing where there is a RabbitMQ. Else it installs
the one of the system, if that has apt-get and lets us; if not, it says in one line what to do.
"""

import glob
import os
import shutil
import subprocess
import sys
from pathlib import Path

# The first place goes before PATH: what Debian has in PATH under the same names are wrappers,
# which change to the user rabbitmq and to the files of the system's own node.
_RABBITMQ_SCRIPTS = "/usr/lib/rabbitmq/bin"
_OTHER_PLACES = (
    "/usr/local/sbin",
    "/opt/homebrew/sbin",
    "/usr/lib/erlang/erts-*/bin",
    "/opt/homebrew/lib/erlang/erts-*/bin",
)

HOW_TO_INSTALL = (
    "the tests need rabbitmq-server: install it"
    " (Debian, Ubuntu: apt-get install rabbitmq-server; macOS: brew install rabbitmq)"
)

# A policy-rc.d that answers 101 keeps Debian's packages from starting their service: the tests
# start nodes of their own, and a broker on the well-known port is nobody's wish here.
_INSTALL_WITH_APT = """
set -e
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
    trap 'rm -f $policy' EXIT
    printf '#!/bin/sh\\nexit 101\\n' >$policy
    chmod +x $policy
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -qq -y --no-install-recommends rabbitmq-server
"""


def find_program(name: str) -> Path | None:
    """Where the program of this name is; None if it is nowhere that we know of."""
    others = [folder for pattern in _OTHER_PLACES for folder in sorted(glob.glob(pattern))]
    searched = [_RABBITMQ_SCRIPTS, os.environ.get("PATH", os.defpath), *others]
    found = shutil.which(name, path=os.pathsep.join(searched))
    return Path(found) if found else None


def main() -> int:
    if find_program("rabbitmq-server"):
        return 0
    as_root = _prefix_to_be_root()
    if shutil.which("apt-get") and as_root is not None:
        subprocess.run([*as_root, "sh", "-c", _INSTALL_WITH_APT], check=False)
    if find_program("rabbitmq-server"):
        return 0
    print(HOW_TO_INSTALL, file=sys.stderr)
    return 1


def _prefix_to_be_root() -> list[str] | None:
    """What to write before a command so that root runs it; None if that is not for us."""
    if os.geteuid() == 0:
        return []
    sudo = ["sudo", "-n"]  # -n: fails instead of asking for a password
    if (
        shutil.which("sudo")
        and subprocess.run([*sudo, "true"], capture_output=True).returncode == 0
    ):
        return sudo
    return None


if __name__ == "__main__":
    sys.exit(main())
