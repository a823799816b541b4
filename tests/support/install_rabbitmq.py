"""Installs RabbitMQ where that is simple.

`python -m tests.support.install_rabbitmq` says nothing where there is a RabbitMQ. Else it installs
the one of the system, if that has apt-get and lets us; if not, or if the tests are to take one from
elsewhere (see `programs`), it says in one line what to do.
"""

import os
import shutil
import subprocess
import sys

from tests.support.programs import find_program, how_to_install, other_root

# A policy-rc.d that answers 101 keeps Debian's packages from starting their service: the tests
# start nodes of their own, and a broker on the well-known port is nobody's wish here.
_INSTALL_WITH_APT = """
set -e
[ ! -e /usr/lib/rabbitmq/bin/rabbitmq-server ] || exit 0  # another one was quicker
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


_LOCK = "/var/lock/qam-tests-install-rabbitmq"


def main() -> int:
    if find_program("rabbitmq-server"):
        return 0
    as_root = _prefix_to_be_root()
    if shutil.which("apt-get") and as_root is not None and not other_root():
        # One at a time: several rows of tox may begin at once, and apt-get does not wait.
        one_at_a_time = ["flock", _LOCK, "sh", "-c", _INSTALL_WITH_APT]
        subprocess.run([*as_root, *one_at_a_time], check=False)
    if find_program("rabbitmq-server"):
        return 0
    print(how_to_install(), file=sys.stderr)
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
