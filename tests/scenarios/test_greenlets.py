"""The documented loop under gevent and eventlet, which `tox run -e greenlets` installs."""

import subprocess
import sys

import pytest

from tests.conftest import Broker
from tests.support.greenlets import PATCHES


@pytest.mark.greenlets
@pytest.mark.parametrize("kind", PATCHES)
def test_the_loop_of_the_tutorial_ends_where_greenlets_stand_for_threads(
    kind: str, broker: Broker
) -> None:
    place = f"amqp://{broker.hostname}:{broker.port}" if broker.port else broker.hostname

    done = subprocess.run(
        [sys.executable, "-m", "tests.support.greenlets", kind, place],
        capture_output=True,
        text=True,
        timeout=120,
    )

    assert (done.returncode, done.stdout) == (0, "True\nrested\n0 callbacks wait\n"), done.stderr
