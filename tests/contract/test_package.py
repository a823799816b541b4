"""What is published: the sdist and the wheel, each unpacked or installed away from the checkout."""

import os
import re
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.cli.test_demo import assert_everything_is_shown

pytestmark = pytest.mark.timeout(600)  # pip may have to download what it installs

ROOT = Path(__file__).parents[2]

# The tests that read files of the checkout, and need no broker.
READ_FILES = [
    *("test_architecture_page", "test_contributing", "test_glossary", "test_guarantees_page"),
    *("test_layers", "test_readme", "test_security_page", "test_threads_page"),
]

# Where pip finds packages and keeps them. Nothing else is inherited: PYTHONPATH, PIP_TARGET or
# GIT_DIR, for example, would lead away from what is tested.
_INHERITED = [
    *("PATH", "HOME", "TMPDIR", "PIP_CACHE_DIR", "PIP_CERT", "PIP_CONFIG_FILE", "PIP_PROXY"),
    *("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_INDEX_URL", "PIP_NO_INDEX"),
    *("PIP_TRUSTED_HOST", "REQUESTS_CA_BUNDLE", "SSL_CERT_DIR", "SSL_CERT_FILE"),
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
]
ENVIRONMENT = {name: os.environ[name] for name in _INHERITED if name in os.environ}


def run(
    *command: str | Path, cwd: Path, environment: dict[str, str] = ENVIRONMENT
) -> tuple[str, str]:
    """What the command wrote to stdout and to stderr; fails if it fails."""
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.fail(f"{command} failed:\n{done.stdout}\n{done.stderr}", pytrace=False)
    return done.stdout, done.stderr


class Package(NamedTuple):
    sdist: Path  #: the folder that it unpacks to
    wheel: Path


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    """The sdist of this tree, and the wheel that is built from the sdist."""
    folder = tmp_path_factory.mktemp("package")
    run(sys.executable, "-m", "build", "--outdir", folder, ROOT, cwd=folder)
    (archive,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    return Package(folder / archive.name.removesuffix(".tar.gz"), wheel)


def files_of(folder: Path) -> set[str]:
    """The files below *folder*, without what Python or pytest makes when it runs there."""
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {path.as_posix() for path in paths if "__pycache__" not in path.parts}


def files_to_publish() -> set[str]:
    """What git tracks here; in an unpacked sdist, where no git is, the parts that it came with."""
    if (ROOT / ".git").exists():
        tracked, _ = run("git", "ls-files", "-z", cwd=ROOT)
        # One that was just deleted is tracked until the next commit.
        return {name for name in tracked.split("\0") if (ROOT / name).is_file()}
    top = [*ROOT.glob("*.md"), *ROOT.glob("*.toml"), *ROOT.glob("*.ini"), ROOT / "LICENSE"]
    folders = [".ci", "docs", "qam", "tests"]
    below = {f"{folder}/{name}" for folder in folders for name in files_of(ROOT / folder)}
    return {path.name for path in top} | below


def test_the_sdist_has_every_file(package: Package) -> None:
    expected = files_to_publish()

    assert {".ci/run", "README.md", "qam/py.typed", "tests/conftest.py", "tox.ini"} <= expected
    assert expected - files_of(package.sdist) == set()
    assert os.access(package.sdist / ".ci" / "run", os.X_OK)


def test_the_wheel_has_the_whole_package_and_nothing_else(package: Package) -> None:
    with zipfile.ZipFile(package.wheel) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}

    assert names == {f"qam/{name}" for name in files_of(ROOT / "qam")}
    assert {"qam/__init__.py", "qam/py.typed"} <= names


def test_the_tests_of_the_sdist_that_read_files_pass_there(package: Package) -> None:
    # when: all test files are imported, and those are run
    pytest_there = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    output, _ = run(*pytest_there, "-k", " or ".join(READ_FILES), cwd=package.sdist)

    # then
    assert re.search(r"^\d+ passed, \d+ deselected in ", output, re.MULTILINE)


def test_to_import_the_library_loads_nothing_that_not_everybody_uses() -> None:
    look = "import sys, qam; print({'asyncio', 'argparse', 'qam.aio'} & set(sys.modules))"
    use = "import sys, qam; print(qam.aio.call.__name__, 'asyncio' in sys.modules)"
    serve = (
        "import sys, qam; server = qam.QAMServer('memory://name'); server.register_function(pow);"
        "server.start(); server.close(); print('asyncio' in sys.modules)"
    )

    printed = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        for code in (look, use, serve)
    ]

    assert [each.stdout for each in printed] == ["set()\n", "call True\n", "False\n"]


def test_the_wheel_shows_the_demo_where_nothing_else_is_installed(
    package: Package, tmp_path: Path
) -> None:
    # given
    installed, home = tmp_path / "installed", tmp_path / "home"
    home.mkdir()
    venv.create(installed, with_pip=True)
    run(installed / "bin" / "python", "-m", "pip", "install", package.wheel, cwd=tmp_path)

    # when
    demo = ["-W", "error", "-m", "qam", "demo"]
    output, errors = run(
        installed / "bin" / "python", *demo, cwd=home, environment={"HOME": str(home)}
    )
    by_script, _ = run(installed / "bin" / "qam", "demo", cwd=home, environment={"HOME": str(home)})

    # then
    assert errors == ""
    assert_everything_is_shown(output)
    assert_everything_is_shown(by_script)
    assert list(home.iterdir()) == []
