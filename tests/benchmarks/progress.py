"""How far a run is, for who waits; on standard error."""

import sys
from collections.abc import Iterator, Sequence
from functools import partial

from tqdm import tqdm

from tests.benchmarks.task import Say, Task

_INTERVAL_IN_A_FILE = 10.0  # seconds


def one_after_the_other(tasks: Sequence[Task]) -> Iterator[tuple[Task, Say]]:
    """The tasks, and a bar of those that are done; with each, what names the part being done."""
    seen = sys.stderr.isatty()
    interval = 0.1 if seen else _INTERVAL_IN_A_FILE
    with tqdm(total=len(tasks), unit="task", mininterval=interval) as bar:
        say = partial(bar.set_postfix_str, refresh=seen)
        for task in tasks:
            bar.set_description(task.title, refresh=seen)
            yield task, say
            bar.set_postfix_str("", refresh=False)
            bar.update()
