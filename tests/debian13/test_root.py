"""Where and how often the root folder of another Debian is made."""

from pathlib import Path

import pytest

from tests.debian13 import __main__ as program
from tests.debian13 import root


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The suites of which a root was made, by something quicker than debootstrap."""
    suites: list[str] = []

    def make(suite: str, folder: Path) -> None:
        suites.append(suite)
        folder.mkdir()
        (folder / "usr").mkdir()

    monkeypatch.setattr(root, "_make", make)
    return suites


def test_it_is_made_once(made: list[str], tmp_path: Path) -> None:
    first = root.made("trixie", tmp_path / "cache")
    second = root.made("trixie", tmp_path / "cache")

    assert first == second == tmp_path / "cache" / "trixie"
    assert (first / "usr").is_dir()
    assert made == ["trixie"]


def test_what_was_not_finished_is_made_anew(made: list[str], tmp_path: Path) -> None:
    (tmp_path / "trixie.unfinished" / "rest").mkdir(parents=True)

    assert not (root.made("trixie", tmp_path) / "rest").exists()


def test_who_is_not_root_is_told_so_in_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setattr("sys.argv", ["debian13"])
    # when
    code = program.main()
    # then nothing was tested, which is no success
    assert code == 1
    [line] = capsys.readouterr().err.splitlines()
    assert "needs root" in line


def test_where_there_is_no_debootstrap_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setenv("PATH", "")

    assert "needs debootstrap and unshare" in root.why_not()


def test_a_worktree_takes_the_repository_along_that_it_names(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    worktree = tmp_path / "worktree"
    worktree.mkdir()
    (worktree / ".git").write_text(f"gitdir: {repository}/.git/worktrees/worktree\n")

    assert root.repository_elsewhere(worktree) == f"{repository}/.git"


def test_what_is_no_worktree_has_its_repository_in_it_or_none(tmp_path: Path) -> None:
    cloned, unpacked = tmp_path / "cloned", tmp_path / "unpacked"
    (cloned / ".git").mkdir(parents=True)
    unpacked.mkdir()

    assert root.repository_elsewhere(cloned) == ""
    assert root.repository_elsewhere(unpacked) == ""


def test_what_has_a_row_of_its_own_is_left_out_as_in_the_gate() -> None:
    gate = (root.CHECKOUT / "tox.ini").read_text()

    alone, together = (arguments[-1] for arguments in program.all_tests("classic"))

    assert f'-m "{alone}"' in gate
    elsewhere = alone.removeprefix("not (watched or cluster or ")
    assert together == f"(watched or cluster) and not ({elsewhere}"
