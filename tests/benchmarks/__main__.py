"""The command line: `python -m tests.benchmarks --contestants raw,qam --rounds 5`.

It prints tables, and ends with 1 if anything failed.
"""

import json
import os
import signal
import sys
from collections.abc import Callable, Sequence

from tests.benchmarks.contestants import CONTESTANTS
from tests.benchmarks.environments import install
from tests.benchmarks.options import Options, parse
from tests.benchmarks.plan import plan
from tests.benchmarks.progress import one_after_the_other
from tests.benchmarks.published import published
from tests.benchmarks.record import record
from tests.benchmarks.report import report
from tests.benchmarks.results import Results
from tests.benchmarks.task import Stage
from tests.support.rabbitmq import RabbitMQNode

_ENDED_BY_CTRL_C, _ENDED_BY_SIGTERM = 130, 143


def _run(options: Options, results: Results) -> None:
    pythons = install(options, results)
    tasks = plan(options, [CONTESTANTS[name] for name in pythons])
    with RabbitMQNode(on_all_cpus=True) as node:
        results.broker = f"RabbitMQ {node.ctl('version').strip()}"
        stage = Stage(node, pythons)
        for task, say in one_after_the_other(tasks):
            task.run(stage, results, say)


def _publisher(options: Options) -> Callable[[Results], None]:
    """Draws at the end; but if there is no matplotlib, that is said at the beginning."""
    if options.plots is None and options.page is None:
        return lambda results: None
    from tests.benchmarks import page, plots

    def publish(results: Results) -> None:
        data = published(options, results)
        if options.plots is not None:
            plots.draw(data, options.plots)
        if options.page is not None:
            page.make(data, options.page)

    return publish


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, and returns the exit code."""
    options = parse(arguments)
    publish = _publisher(options)
    results = Results(load_before=os.getloadavg()[0])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(_ENDED_BY_SIGTERM))  # all is taken down
    code = 0
    try:
        _run(options, results)
    except KeyboardInterrupt:
        code = _ENDED_BY_CTRL_C  # what there is by now is shown
    print(report(results, options.contestants))
    if options.json:
        options.json.write_text(json.dumps(record(options, results), indent=1))
    publish(results)
    return code or (1 if results.failures else 0)


if __name__ == "__main__":
    sys.exit(main())
