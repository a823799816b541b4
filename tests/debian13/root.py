"""The root folder of another Debian: made once, and entered to run the tests there.

It is made by debootstrap in a cache folder, which may be deleted at any time.  It has the
`rabbitmq-server` and the Python of that Debian; what the tests need beside these comes by pip.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fcntl import LOCK_EX, flock
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
# Where the checkout is inside of the root, and the environment that runs the tests.
_INSIDE, _VENV = "/qam", "/opt/qam-tests"

_PACKAGES = ("ca-certificates", "git", "python3-venv", "rabbitmq-server")
# Keeps Debian's packages from starting their services: the tests start nodes of their own.
_NO_SERVICES = "#!/bin/sh\nexit 101\n"
# Whose certificates pip has to trust may be a matter of this machine.
_CERTIFICATES = "etc/ssl/certs/ca-certificates.crt"

# The mounts are seen by nobody else, and are gone with the last process in there.  No process
# outlives the first one, not even if that is killed, and none of them sees any other.  The first is
# the shell, which stays, since it has to reap the processes whose parents are gone.
_NAMESPACE = ("unshare", "--mount", "--pid", "--fork", "--kill-child")
_MOUNT_AND_ENTER = """
set -e
root=$1 checkout=$2 inside=$3 repository=$4
shift 4
mkdir -p "$root$inside"
mount --bind "$checkout" "$root$inside"
if [ -n "$repository" ]; then
    mkdir -p "$root$repository"
    mount --bind "$repository" "$root$repository"
fi
mount --rbind /dev "$root/dev"
mount -t proc proc "$root/proc"
mount -t tmpfs tmpfs "$root/tmp"
chroot "$root" /usr/bin/env --chdir="$inside" "$@" && exit 0 || exit $?
"""


def why_not() -> str:
    """Why no such root can be made on this machine, in one line; empty if it can."""
    if not sys.platform.startswith("linux"):
        return "this needs Linux, on which another Debian can run"
    if os.geteuid() != 0:
        return "this needs root, for debootstrap and chroot"
    if missing := [name for name in ("debootstrap", "unshare") if shutil.which(name) is None]:
        return f"this needs {' and '.join(missing)}, which Debian's packages have"
    return ""


def made(suite: str, folder: Path) -> Path:
    """Return the root of the Debian of this name in *folder*; make it if it is not there yet.

    :raises subprocess.CalledProcessError: it can't be made, as where no mirror can be reached.
    """
    root = folder / suite
    with _alone(folder / f"{suite}.lock"):
        if not root.exists():
            unfinished = folder / f"{suite}.unfinished"
            shutil.rmtree(unfinished, ignore_errors=True)
            _make(suite, unfinished)
            unfinished.rename(root)
    return root


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        flock(file, LOCK_EX)
        yield


def _make(suite: str, root: Path) -> None:
    subprocess.run(["debootstrap", "--variant=minbase", suite, root], check=True)
    policy = root / "usr" / "sbin" / "policy-rc.d"
    policy.write_text(_NO_SERVICES)
    policy.chmod(0o755)
    install = "apt-get update -qq && apt-get install -qq -y --no-install-recommends"
    command = f"{install} {' '.join(_PACKAGES)}"
    run_in(root, ["sh", "-c", command], {"DEBIAN_FRONTEND": "noninteractive"})
    if (ours := Path("/") / _CERTIFICATES).exists():
        shutil.copy(ours, root / _CERTIFICATES)
    run_in(root, ["python3", "-m", "venv", _VENV], {})


def install_dependencies(root: Path) -> None:
    """Install qam, as it is in the checkout, and what the tests need."""
    pip = [f"{_VENV}/bin/pip", "install", "--quiet", "--disable-pip-version-check"]
    run_in(root, [*pip, "--editable", ".", "--group", "test", "--group", "package"], {})


def test_in(root: Path, arguments: Sequence[str], variables: Mapping[str, str]) -> int:
    """Run pytest with these arguments; return its exit code."""
    command = [f"{_VENV}/bin/python", "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    return _run(root, command, variables).returncode


def run_in(root: Path, command: Sequence[str], variables: Mapping[str, str]) -> None:
    """Run a command in there, and what it starts ends with it."""
    _run(root, command, variables).check_returncode()


def repository_elsewhere(checkout: Path) -> str:
    """Where the repository of a worktree of git is, which names it by its path; else nothing."""
    link = checkout / ".git"
    if not link.is_file():
        return ""
    own_part = Path(link.read_text().removeprefix("gitdir: ").rstrip("\n"))
    return str(own_part.parents[1])  # of REPOSITORY/worktrees/NAME


def _run(
    root: Path, command: Sequence[str], variables: Mapping[str, str]
) -> subprocess.CompletedProcess[bytes]:
    folders = [root, CHECKOUT, _INSIDE, repository_elsewhere(CHECKOUT)]
    enter = ["sh", "-c", _MOUNT_AND_ENTER, "sh", *folders]
    pip = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    return subprocess.run([*_NAMESPACE, *enter, *command], env=_SURROUNDINGS | pip | variables)


_SURROUNDINGS = {
    # The checkout may belong to somebody else, whose repository git reads only if told so.
    "GIT_CONFIG_COUNT": "1",
    "GIT_CONFIG_KEY_0": "safe.directory",
    "GIT_CONFIG_VALUE_0": "*",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    # The checkout belongs to others, who may not delete what root has written there.
    "PYTHONPYCACHEPREFIX": "/tmp/pycache",
}
