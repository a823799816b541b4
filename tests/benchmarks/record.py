"""What is written as JSON: every sample, and what it was measured with."""

import os
import platform
import sys
from dataclasses import asdict
from typing import Any

import psutil

from tests.benchmarks.measures import COLUMNS
from tests.benchmarks.options import Options
from tests.benchmarks.results import Results


def machine() -> dict[str, Any]:
    """What it was measured on."""
    return {
        "cpu_count": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "system": platform.platform(),
        "python": sys.version,
    }


def record(options: Options, results: Results) -> dict[str, Any]:
    """All of it, as JSON can carry it."""
    return {
        "machine": machine(),
        "rounds": options.rounds,
        "sizes": asdict(options.sizes),
        "medians": {
            name: {column.name: results.value(name, column) for column in COLUMNS}
            for name in options.contestants
        },
        "ratios": {
            name: {
                column.name: results.ratio(name, column) for column in COLUMNS if column.compared
            }
            for name in options.contestants
        },
        **vars(results),
        "failures": [asdict(failure) for failure in results.failures],
    }
