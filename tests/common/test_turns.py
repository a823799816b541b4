"""Whose turn is next while a user's loop waits."""

import os
import time
from typing import Any

import pytest

from qam._common.turns import let_others_run


@pytest.mark.parametrize("module", ["gevent.hub", "eventlet.greenthread"])
def test_where_greenlets_stand_for_threads_their_sleep_lets_others_run(
    module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[Any] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)

    sleep.__module__ = module
    monkeypatch.setattr(time, "sleep", sleep)

    let_others_run()

    assert slept == [0]


def test_elsewhere_nobody_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[Any] = []
    if hasattr(os, "sched_yield"):
        monkeypatch.setattr(time, "sleep", slept.append)

    let_others_run()

    assert slept == []
