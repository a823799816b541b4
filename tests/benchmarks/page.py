"""Replaces the figures in the page about performance, and draws its plots beside it.

    python -m tests.benchmarks.page docs/topics/performance.md

makes tables and plots anew from the data that lie beside the page, without measuring.
"""

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.benchmarks.measures import COLUMNS, Column
from tests.benchmarks.published import FILE, read, results_of
from tests.benchmarks.report import figures, number, sweep, table, times
from tests.benchmarks.results import Results
from tests.benchmarks.sweeps import SWEEPS

_NAMED = {column.name: column for column in COLUMNS}
#: The tables of the page: each is narrow enough for a phone.
_TABLES = {
    "waiting": ("sync p50", "sync p90", "sync p99", "polling p50"),
    "rates": ("16 threads", "pipelined", "1 MiB echo"),
    "costs": ("client CPU", "server CPU", "beside CPU p50"),
}


def folder_of(page: Path) -> Path:
    """Where the plots and the data of *page* are."""
    return page.with_suffix("")


def make(data: dict[str, Any], page: Path) -> None:
    """Draw the plots of *page*, and replace its figures."""
    from tests.benchmarks.plots import draw  # needs matplotlib

    drawn = draw(data, folder_of(page))
    plots = {plot.name: f"![{plot.shows}]({page.stem}/{plot.file})" for plot in drawn}
    by_points = "\n\n".join(image for name, image in plots.items() if name.startswith("by-"))
    fill(page, sections_of(data) | plots | {"sweep plots": by_points or _NOT_MEASURED})


def sections_of(data: dict[str, Any]) -> dict[str, str]:
    """The parts of the page that are figures, by name; without the plots."""
    results, contestants = results_of(data), data["contestants"]
    tables = {
        name: _table(results, contestants, [_NAMED[each] for each in columns])
        for name, columns in _TABLES.items()
    }
    sweeps = "\n\n".join(filter(None, (sweep(results, each) for each in SWEEPS)))
    return {
        "measured": "\n".join(_how(data)),
        **tables,
        "single": figures(results, contestants) or _NOT_MEASURED,
        "sweeps": sweeps or _NOT_MEASURED,
    }


#: The load average for each CPU up to which a machine counts as quiet.
_QUIET = 0.25
_NOT_MEASURED = "Not measured in this run, which was a quick one."


def _how(data: dict[str, Any]) -> Iterator[str]:
    machine, kind = data["machine"], "quick rounds (`--quick`)" if data["quick"] else "rounds"
    yield (
        f"Python {machine['python'].split()[0]}, {data['broker']}, loopback, "
        f"{machine['cpu_count']} CPUs; medians of {data['rounds']} {kind}."
    )
    if data["load_before"] > _QUIET * machine["cpu_count"]:
        yield (
            f"**Other programs had kept the CPUs busy** (load average {data['load_before']:.1f} "
            "before the run): if they went on, single figures and ratios are far off."
        )
    versions = {
        f"{package} {version}"
        for each in data["versions"].values()
        for package, version in each.items()
    }
    yield f"Versions: {', '.join(sorted(versions, key=str.lower))}."
    for failure in data["failures"]:
        yield f"Failed: {failure}."


def _table(results: Results, contestants: Sequence[str], columns: Sequence[Column]) -> str:
    heads = ["", *(f"{column.name}, {column.unit}" for column in columns)]
    rows = [
        [name, *(_cell(results, name, column) for column in columns)]
        for name in contestants
        if any(results.value(name, column) is not None for column in columns)
    ]
    return table(heads, rows)


def _cell(results: Results, name: str, column: Column) -> str:
    value = results.value(name, column)
    return (
        number(value)
        if value is None
        else f"{number(value)} ({times(results.ratio(name, column))})"
    )


def _marked(name: str) -> re.Pattern[str]:
    return re.compile(rf"(<!-- figures: {name} -->\n).*?(<!-- end of {name} -->)", re.DOTALL)


def part(text: str, name: str) -> str:
    """What stands in a page between the marks of *name*."""
    found = _marked(name).search(text)
    assert found is not None, f"the page has no marks of {name}"
    begin, end = found.groups()
    return found[0].removeprefix(begin).removesuffix(end).strip()


def fill(page: Path, sections: dict[str, str]) -> None:
    """Replace what stands between the marks of each section; what has no marks is left out."""
    text = page.read_text(encoding="utf-8")
    for name, section in sections.items():
        text = _marked(name).sub(
            lambda found, new=section: f"{found[1]}\n{new}\n\n{found[2]}", text
        )
    page.write_text(text, encoding="utf-8")


def main() -> None:
    """Make the figures of the page that is named anew."""
    page = Path(sys.argv[1])
    make(read(folder_of(page)), page)
    print(f"made from {folder_of(page) / FILE}")


if __name__ == "__main__":
    main()
