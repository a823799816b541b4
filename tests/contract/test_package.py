"""What is published: the sdist and the wheel, each unpacked or installed away from the checkout."""

import json
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
from tests.support.rabbitmq import RabbitMQNode

pytestmark = pytest.mark.timeout(600)  # pip may have to download what it installs

ROOT = Path(__file__).parents[2]

# The tests that read files of the checkout, and need no broker.
READ_FILES = [
    *("test_architecture_page", "test_contributing", "test_glossary", "test_guarantees_page"),
    *("test_layers", "test_operations_pages", "test_pages", "test_readme", "test_security_page"),
    *("test_site", "test_threads_page", "test_troubleshooting_page"),
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
    kinds = ["*.md", "*.toml", "*.ini", "*.py", "LICENSE"]
    top = [path for kind in kinds for path in ROOT.glob(kind)]
    folders = [".ci", "docs", "qam", "tests"]
    below = {f"{folder}/{name}" for folder in folders for name in files_of(ROOT / folder)}
    return {path.name for path in top} | below


def test_the_sdist_has_every_file(package: Package) -> None:
    expected = files_to_publish()

    assert {".ci/run", "README.md", "hatch_build.py", "qam/py.typed"} <= expected
    assert {"tests/conftest.py", "tox.ini"} <= expected
    assert expected - files_of(package.sdist) == set()
    assert os.access(package.sdist / ".ci" / "run", os.X_OK)


def test_an_index_page_shows_both_as_they_are(package: Package) -> None:
    archives = [package.sdist.with_name(f"{package.sdist.name}.tar.gz"), package.wheel]

    output, _ = run(sys.executable, "-m", "twine", "check", "--strict", *archives, cwd=ROOT)

    assert output.count("PASSED") == 2


def test_no_link_of_an_index_page_is_relative(package: Package) -> None:
    with zipfile.ZipFile(package.wheel) as wheel:
        [name] = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
        metadata = wheel.read(name).decode()

    [source] = re.findall(r"^Project-URL: Source, (.*)$", metadata, re.MULTILINE)
    targets = re.findall(r"\]\(([^)]+)\)", metadata)
    assert f"{source}/blob/main/docs/tutorial.md" in targets
    assert [each for each in targets if not each.startswith(("https://", "#"))] == []


def test_the_wheel_has_the_whole_package_and_nothing_else(package: Package) -> None:
    with zipfile.ZipFile(package.wheel) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}

    assert names == {f"qam/{name}" for name in files_of(ROOT / "qam")}
    assert {"qam/__init__.py", "qam/py.typed"} <= names


def test_the_tests_of_the_sdist_that_read_files_pass_there(package: Package) -> None:
    # when
    pytest_there = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    files = [f"tests/contract/{name}.py" for name in READ_FILES]
    output, _ = run(*pytest_there, *files, cwd=package.sdist)

    # then
    assert re.search(r"^\d+ passed in ", output, re.MULTILINE)


def test_to_import_the_library_loads_nothing_that_not_everybody_uses() -> None:
    look = (
        "import sys, qam; print({'asyncio', 'argparse', 'qam.aio', 'qam._cli'} & set(sys.modules))"
    )
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


@pytest.fixture(scope="module")
def installed(package: Package, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The commands of an environment in which the wheel was installed, without extras."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder)
    run(*pip_of(folder), "install", package.wheel, cwd=folder)
    return folder / "bin"


def pip_of(environment: Path) -> list[str | Path]:
    """This pip, which works in that environment: one of its own would take 4 s to make."""
    return [sys.executable, "-m", "pip", "--python", environment / "bin" / "python"]


def test_the_wheel_installs_what_speaks_amqp_and_nothing_else(
    installed: Path, tmp_path: Path
) -> None:
    output, _ = run(*pip_of(installed.parent), "list", "--format", "json", cwd=tmp_path)

    names = {each["name"].lower() for each in json.loads(output)}
    # The others are what kombu needs.
    assert {"qam", "amqp", "kombu"} <= names
    assert names <= {"qam", "amqp", "kombu", "vine", "tzdata", "packaging"}


def test_the_wheel_shows_the_demo_where_nothing_else_is_installed(
    installed: Path, tmp_path: Path
) -> None:
    # when
    demo = ["-W", "error", "-m", "qam", "demo"]
    environment = {"HOME": str(tmp_path)}
    output, errors = run(installed / "python", *demo, cwd=tmp_path, environment=environment)
    by_script, _ = run(installed / "qam", "demo", cwd=tmp_path, environment=environment)

    # then
    assert errors == ""
    assert_everything_is_shown(output)
    assert_everything_is_shown(by_script)
    assert list(tmp_path.iterdir()) == []


def test_the_wheel_runs_each_command_where_nothing_else_is_installed(
    installed: Path, tmp_path: Path, rabbitmq_node: RabbitMQNode, server_id: str
) -> None:
    # given
    (tmp_path / "calc.py").write_text("def add(a: int, b: int) -> int:\n    return a + b\n")
    environment = {"QAM_BROKER_URL": rabbitmq_node.url, "PYTHONDONTWRITEBYTECODE": "1"}

    def qam(*arguments: str) -> str:
        output, errors = run(installed / "qam", *arguments, cwd=tmp_path, environment=environment)
        assert errors == ""
        return output

    serve = [installed / "qam", "serve", "calc", "--server-id", server_id]
    with subprocess.Popen(
        serve, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stderr is not None
            assert any("serves at" in line for line in server.stderr), "it ended"

            # when
            shown = [
                qam("call", server_id, "add", "2", "b=3"),
                qam("methods", server_id),
                qam("methods", server_id, "--stub"),
                qam("ping", server_id, "--timeout", "60"),
                qam("health", server_id, "--timeout", "60"),
                qam("--version"),
            ]
            server.terminate()

            # then
            assert server.wait(60) == 0
        finally:
            server.kill()
    assert shown[:2] == ["5\n", "add(a: int, b: int) -> int\n"]
    assert "def add(self, a: int, b: int) -> int: ..." in shown[2]
    assert "answered in" in shown[3]
    assert "0 requests wait for 1 server" in shown[4]
    assert shown[5].startswith("qam ")
