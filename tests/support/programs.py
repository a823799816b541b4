"""Finds the programs of RabbitMQ and Erlang: those of this system, or those of another one.

The environment variable QAM_TEST_BROKER_ROOT names the root folder of another Linux system, as
debootstrap makes one; whatever starts a RabbitMQ here (tests, benchmarks, the chaos soak) then
takes the one in that folder. Without it, it is the one of this system. For instance, as root:

    debootstrap --variant=minbase trixie /srv/trixie
    printf '#!/bin/sh\\nexit 101\\n' >/srv/trixie/usr/sbin/policy-rc.d  # starts no service
    chmod +x /srv/trixie/usr/sbin/policy-rc.d
    chroot /srv/trixie apt-get install --no-install-recommends rabbitmq-server
    QAM_TEST_BROKER_ROOT=/srv/trixie tox run -e py

These programs know each other by absolute paths, all of them below /usr. So each is started in a
mount namespace of its own, in which the /usr of that folder is in the place of this system's.
Everything else is as outside: the node's folder, /proc, /dev, the network, the process ids. The
mount is seen by nobody else, and is gone with the program. Both systems must have all of their
programs and libraries below /usr (as Debian has since 12); it takes root, or the right to make
user namespaces.
"""

import glob
import os
import shutil

ROOT_VARIABLE = "QAM_TEST_BROKER_ROOT"

# The first place goes before PATH: what Debian has in PATH under the same names are wrappers,
# which change to the user rabbitmq and to the files of the system's own node.
_RABBITMQ_SCRIPTS = "/usr/lib/rabbitmq/bin"
_OTHER_PLACES = (
    "/usr/local/sbin",
    "/opt/homebrew/sbin",
    "/usr/lib/erlang/erts-*/bin",
    "/opt/homebrew/lib/erlang/erts-*/bin",
)

# The shell becomes the program: whoever kills the one that was started kills that.
_WITH_ITS_USR = 'mount --bind "$0/usr" /usr && exec "$@"'


def other_root() -> str:
    """The root folder of the system that has the programs; empty if it is this system."""
    named = os.environ.get(ROOT_VARIABLE)
    return os.path.abspath(named) if named else ""


def find_program(name: str) -> list[str] | None:
    """The command that runs the program of this name; None if it is nowhere that we know of.

    The last word is the program's path, to which arguments can be added.
    """
    root = other_root()
    in_path = os.environ.get("PATH", os.defpath).split(os.pathsep)
    searched = [_RABBITMQ_SCRIPTS, *in_path, *_OTHER_PLACES]
    folders = [folder for place in searched for folder in sorted(glob.glob(root + place))]
    found = shutil.which(name, path=os.pathsep.join(folders))
    return [*_enter(root), found.removeprefix(root)] if found else None


def how_to_install() -> str:
    """What to do where there is no RabbitMQ, in one line."""
    if root := other_root():
        return f"the tests need rabbitmq-server in {root}, which {ROOT_VARIABLE} names"
    return (
        "the tests need rabbitmq-server: install it"
        " (Debian, Ubuntu: apt-get install rabbitmq-server; macOS: brew install rabbitmq)"
    )


def _enter(root: str) -> list[str]:
    """What to write before a command that is to run in this root."""
    if not root:
        return []
    as_root = [] if os.geteuid() == 0 else ["--map-root-user"]
    return ["unshare", "--mount", *as_root, "sh", "-c", _WITH_ITS_USR, root]
