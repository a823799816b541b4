"""What is printed at the end: the figures as tables in Markdown, and what failed."""

from collections import defaultdict
from collections.abc import Callable, Sequence

from tests.benchmarks.figures import Sample, median
from tests.benchmarks.measures import COLUMNS, Column
from tests.benchmarks.results import Results
from tests.benchmarks.sweeps import SWEEPS, Sweep, growth_with_outstanding

_NOTHING = "-"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown, the first column to the left and the others to the right."""
    widths = [max(map(len, cells)) for cells in zip(heads, *rows, strict=True)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join(_line(cells, widths) for cells in (heads, rule, *rows))


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = zip(cells, widths, strict=True)
    padded = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
    return f"| {' | '.join(padded)} |"


def number(value: Sample) -> str:
    """A figure with three significant digits, or more before the point."""
    if value is None:
        return _NOTHING
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def times(ratio: Sample) -> str:
    """A ratio."""
    return _NOTHING if ratio is None else f"{ratio:.2f}x"


def values(results: Results, contestants: Sequence[str]) -> str:
    """The medians."""
    heads = ["", *(f"{column.name} {column.unit}".strip() for column in COLUMNS)]
    return _table_of(results, contestants, COLUMNS, heads, lambda *at: number(results.value(*at)))


def ratios(results: Results, contestants: Sequence[str]) -> str:
    """How many times as dear each is as the reference."""
    columns = [column for column in COLUMNS if column.compared]
    heads = ["x", *(column.name for column in columns)]
    return _table_of(results, contestants, columns, heads, lambda *at: times(results.ratio(*at)))


def _table_of(
    results: Results,
    contestants: Sequence[str],
    columns: Sequence[Column],
    heads: Sequence[str],
    cell: Callable[[str, Column], str],
) -> str:
    rows = [
        [_title(results, name), *(cell(name, column) for column in columns)] for name in contestants
    ]
    return table(heads, rows)


def _title(results: Results, contestant: str) -> str:
    return contestant if contestant in results.versions else f"{contestant} (not installed)"


def notes(results: Results) -> list[str]:
    """What is not in the tables, and why; each once."""
    without: dict[tuple[str, str], list[str]] = defaultdict(list)
    for name, reasons in results.not_offered.items():
        for why in reasons.items():
            without[why].append(name)
    lines = [
        f"not offered   {measure}: {reason} ({', '.join(names)})"
        for (measure, reason), names in without.items()
    ]
    failed = (f"FAILED        {f.contestant}, {f.what}: {f.error}" for f in results.failures)
    return lines + list(dict.fromkeys(failed))


def figures(results: Results, contestants: Sequence[str]) -> str:
    """The single figures, as far as there are any."""
    columns = dict(results.figures)
    if grown := _growths(results, contestants):
        columns["cost of a call, 100,000 to 1,000 outstanding"] = grown
    if not columns:
        return ""
    rows = [
        [name, *(number(column.get(name)) for column in columns.values())] for name in contestants
    ]
    return table(["", *columns], rows)


def _growths(results: Results, contestants: Sequence[str]) -> dict[str, float]:
    growths = {name: growth_with_outstanding(results, name) for name in contestants}
    return {name: growth for name, growth in growths.items() if growth is not None}


def sweep(results: Results, which: Sweep) -> str:
    """The medians at each point, as far as there are any."""
    rows = [
        [name, *(number(median(points.get(at, []))) for at in which.points)]
        for name, points in results.sweeps.get(which.name, {}).items()
        if points
    ]
    if not rows:
        return ""
    heads = [f"{which.unit} by {which.varied}", *(f"{point:,}" for point in which.points)]
    return table(heads, rows)


def report(results: Results, contestants: Sequence[str]) -> str:
    """All of it."""
    parts = [
        "Medians over the rounds:",
        values(results, contestants),
        "Times as dear as raw (1.00x is the same, 2.00x twice as slow or half as many):",
        ratios(results, contestants),
        figures(results, contestants),
        *(sweep(results, each) for each in SWEEPS),
        "\n".join(notes(results)),
    ]
    return "\n\n".join(filter(None, parts))
