"""Where the libraries of the contestants are: in this environment, or in one of their own."""

import json
import subprocess
import sys
import venv
from pathlib import Path

from tests.benchmarks.contestants import CONTESTANTS, Contestant
from tests.benchmarks.options import Options
from tests.benchmarks.results import Failure, Results

_INSTALLED = "installed"  # the last thing that is written


class CannotBeInstalled(Exception):
    """Says what pip said."""


def python_for(contestant: Contestant, folder: Path) -> Path:
    """The Python that has the contestant's library, which is installed if it is not there yet."""
    if not contestant.requirements:
        return Path(sys.executable)
    own = folder / f"{contestant.name}-{sys.version_info.major}.{sys.version_info.minor}"
    python = own / "bin" / "python"
    if not (own / _INSTALLED).exists():
        venv.create(own, with_pip=True, clear=True)
        _pip(python, contestant.requirements)
        (own / _INSTALLED).touch()
    return python


def _pip(python: Path, requirements: tuple[str, ...]) -> None:
    command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run([*command, *requirements], capture_output=True, text=True)
    if done.returncode != 0:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        raise CannotBeInstalled((errors or done.stderr.splitlines() or ["no word why"])[-1])


_TELL_VERSIONS = """
import importlib.metadata, json, sys
print(json.dumps({name: importlib.metadata.version(name) for name in sys.argv[1:]}))
"""


def versions(contestant: Contestant, python: Path) -> dict[str, str]:
    """The versions of the contestant's packages."""
    command = [python, "-I", "-c", _TELL_VERSIONS, *contestant.packages]
    answer: dict[str, str] = json.loads(subprocess.check_output(command))
    return answer


def install(options: Options, results: Results) -> dict[str, Path]:
    """The Pythons of those contestants that can be installed."""
    pythons = {}
    for name in options.contestants:
        try:
            python = python_for(CONTESTANTS[name], options.environments)
            results.versions[name] = versions(CONTESTANTS[name], python)
            pythons[name] = python
        except CannotBeInstalled as error:
            results.failures.append(Failure(name, "installation", str(error)))
    return pythons
