"""Where the programs of the broker are taken from."""

import os
import re
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.support.programs import ROOT_VARIABLE, find_program, how_to_install
from tests.support.tethered import TetheredProcess
from tests.support.waiting import until

SH = "/bin/sh"


def may_mount() -> bool:
    """Whether this user may have a mount namespace, which only Linux has."""
    if shutil.which("unshare") is None:
        return False
    return subprocess.run(["unshare", "--mount", "--map-root-user", "true"]).returncode == 0


needs_mounts = pytest.mark.skipif(not may_mount(), reason="no mount namespaces for this user")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root folder with nothing in it, which is named as that of the broker."""
    root = tmp_path / "root"
    root.mkdir()
    monkeypatch.setenv(ROOT_VARIABLE, str(root))
    return root


def add_shell(root: Path) -> None:
    """Copy the shell, and the libraries that it needs."""
    libraries = re.findall(r"/\S+", subprocess.check_output(["ldd", SH], text=True))
    for path in (SH, *libraries):
        copy = root / "usr" / path.removeprefix("/usr").lstrip("/")
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)


def add_program(root: Path, name: str, text: str) -> None:
    program = root / "usr" / "lib" / "rabbitmq" / "bin" / name
    program.parent.mkdir(parents=True)
    program.write_text(text)
    program.chmod(0o755)


def mounts() -> str:
    return Path("/proc/self/mountinfo").read_text()


@needs_mounts
def test_a_program_of_the_other_root_runs_with_what_is_there(root: Path) -> None:
    before = mounts()
    # given a program that looks at itself, and at what is outside of /usr
    add_shell(root)
    add_program(root, "rabbitmq-server", f'#!{SH}\nread word <"$1"; echo "$0" "$word"\n')
    (root.parent / "data").write_text("outside\n")
    program = find_program("rabbitmq-server")
    assert program is not None
    # when
    said = subprocess.check_output([*program, root.parent / "data"], text=True)
    # then
    assert said == "/usr/lib/rabbitmq/bin/rabbitmq-server outside\n"
    assert mounts() == before


def named(name: str, tethered: TetheredProcess) -> list[psutil.Process]:
    """Those of its processes; one that only mounts may end while it is looked at."""
    found = []
    for process in tethered.processes():
        with suppress(psutil.NoSuchProcess):
            if process.name() == name:
                found.append(process)
    return found


@needs_mounts
def test_one_that_runs_there_is_ended_by_its_tether_and_leaves_no_mount(
    root: Path, tmp_path: Path
) -> None:
    before = mounts()
    # given a root that has the programs of this system
    (root / "usr").symlink_to("/usr")
    program = find_program("sleep")
    assert program is not None
    # when
    sleeper = TetheredProcess([*program, "600"], env=os.environ, output=tmp_path / "log")
    until(lambda: named("sleep", sleeper))
    # then it has a namespace of its own
    [process] = named("sleep", sleeper)
    assert os.readlink(f"/proc/{process.pid}/ns/mnt") != os.readlink("/proc/self/ns/mnt")
    # and when
    sleeper.kill()
    # then
    assert not process.is_running()
    assert mounts() == before


def test_programs_of_this_system_are_not_taken_for_those_of_the_other_root(root: Path) -> None:
    assert find_program("sh") is None
    assert str(root) in how_to_install()


@pytest.mark.parametrize("value", [None, ""])
def test_without_another_root_they_are_those_of_this_system(
    monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    if value is None:
        monkeypatch.delenv(ROOT_VARIABLE, raising=False)
    else:
        monkeypatch.setenv(ROOT_VARIABLE, value)

    assert find_program("sh") == [shutil.which("sh")]
