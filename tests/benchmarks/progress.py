"""How far a run is, for who waits; on standard error."""

from collections.abc import Iterator, Sequence

from tqdm import tqdm

from tests.benchmarks.task import Say, Task


def one_after_the_other(tasks: Sequence[Task]) -> Iterator[tuple[Task, Say]]:
    """The tasks, and a bar of those that are done; with each, what names the part being done."""
    # None: nothing is drawn where standard error is no terminal.
    with tqdm(total=len(tasks), unit="task", disable=None) as bar:
        for task in tasks:
            bar.set_description(task.title)
            yield task, bar.set_postfix_str
            bar.set_postfix_str("", refresh=False)
            bar.update()
