"""The plots, as SVG files; drawn without a screen.

They are narrow, so that their texts can be read on a phone, and have a background of their own, so
that they can be read on a dark page. The same data make the same file.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from tests.benchmarks.figures import Sample, median
from tests.benchmarks.published import PERCENTS, write
from tests.benchmarks.sweeps import SWEEPS, Sweep

_WIDTH, _HEIGHT, _PER_CONTESTANT = 4.6, 4.4, 0.34  # inches
_INK, _PALE, _PAPER = "#1f2430", "#c9ced8", "#fbfcfe"
#: Of qam; of the bare client; of who needs no broker; of all others.
_QAM, _RAW, _DIRECT, _OTHERS = "#0b5fce", "#1f2430", "#b4490f", "#808999"
_COLOURS = {
    "raw": _RAW,
    "qam": _QAM,
    "qam-futures": "#5aa0f2",
    "qam-transient": "#00857c",
    "pyro5": _DIRECT,
}
#: Whose distribution is drawn: lines of more can't be told apart.
_DRAWN_AS_LINES = ("raw", "qam", "qam-transient", "aio-pika", "celery", "pyro5")
_LINES = {"aio-pika": "#8a4fc9", "celery": "#808999"} | _COLOURS

_STYLE: dict[str, Any] = {
    **dict.fromkeys(("text.color", "xtick.color", "ytick.color", "axes.labelcolor"), _INK),
    **dict.fromkeys(("axes.edgecolor", "grid.color"), _PALE),
    **dict.fromkeys(("figure.facecolor", "axes.facecolor", "legend.facecolor"), _PAPER),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right", "legend.frameon"), False),
    "font.size": 10,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "svg.hashsalt": "qam",
}

Data = dict[str, Any]


@dataclass(frozen=True)
class Plot:
    """A plot: its file, what it shows in words, and what draws it; False if there are no data."""

    name: str
    shows: str
    draw_on: Callable[[Data, Axes], bool]
    #: Its height, by the number of contestants.
    height: Callable[[int], float] = lambda contestants: _HEIGHT

    @property
    def file(self) -> str:
        """The name of its file."""
        return f"{self.name}.svg"


def draw(data: Data, folder: Path) -> list[Plot]:
    """Draw all plots for which there are data, and write the data beside; return what was drawn."""
    write(data, folder)
    with matplotlib.rc_context(_STYLE):
        return [plot for plot in PLOTS if _draw(plot, data, folder / plot.file)]


def _draw(plot: Plot, data: Data, path: Path) -> bool:
    figure = Figure((_WIDTH, plot.height(len(data["contestants"]))), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.add_subplot()
    axes.grid(alpha=0.6, linewidth=0.6)
    axes.set_axisbelow(True)
    if there_are_data := plot.draw_on(data, axes):
        figure.savefig(path, metadata={"Date": None, "Title": plot.shows})
    return there_are_data


# --- bars -------------------------------------------------------------------------------


def _medians(data: Data, column: str) -> dict[str, float]:
    """The medians over the rounds, of those who have any, the least first."""
    by_contestant = data["samples"].items()
    found: dict[str, Sample] = {name: median(each.get(column, [])) for name, each in by_contestant}
    there = {name: value for name, value in found.items() if value is not None}
    return dict(sorted(there.items(), key=lambda each: each[1]))


def _draw_latencies(data: Data, axes: Axes) -> bool:
    p50, p90, p99 = (_medians(data, f"sync p{percent}") for percent in (50, 90, 99))
    for row, name in enumerate(reversed(p50)):
        colour, whole = _COLOURS.get(name, _OTHERS), (p50[name], p99[name])
        axes.plot(whole, [row, row], color=colour, linewidth=1.5)
        axes.plot(p50[name], row, "o", color=colour)
        axes.plot(p90[name], row, "|", color=colour, markersize=9, markeredgewidth=2)
        axes.plot(p99[name], row, "o", color=colour, markerfacecolor=_PAPER)
    _by_powers(axes)
    _name_rows(axes, list(reversed(p50)), "● half of the calls  | 90 %  ○ 99 % (µs, logarithmic)")
    axes.set_title("How long a waiting call takes at most")
    return bool(p50)


def _draw_rates(data: Data, axes: Axes, column: str, title: str) -> bool:
    rates = _medians(data, column)
    for row, (name, rate) in enumerate(rates.items()):
        axes.barh(row, rate, height=0.62, color=_COLOURS.get(name, _OTHERS))
        axes.annotate(
            f"{rate:,.0f}", (rate, row), (3, 0), textcoords="offset points", va="center", size=8.5
        )
    axes.margins(x=0.17)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_formatter("{x:,.0f}")
    _name_rows(axes, list(rates), "calls per second")
    axes.set_title(title)
    return bool(rates)


def _name_rows(axes: Axes, names: list[str], unit: str) -> None:
    axes.set_yticks(range(len(names)), names)
    for label, name in zip(axes.get_yticklabels(), names, strict=True):
        label.set_color(_COLOURS.get(name, _INK))
        label.set_fontweight("bold" if name.startswith("qam") else "normal")
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(unit, size=9)


# --- lines ------------------------------------------------------------------------------


def _draw_distribution(data: Data, axes: Axes, measure: str, title: str) -> bool:
    for name in _DRAWN_AS_LINES:
        if microseconds := data["distributions"].get(name, {}).get(measure):
            slower = [100 - percent for percent in PERCENTS]
            axes.plot(microseconds[:-1], slower[:-1], label=name, color=_LINES[name])
    _by_powers(axes)
    axes.set_yscale("log")
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_yticks([50, 10, 1, 0.1], ["50 %", "10 %", "1 %", "0.1 %"])
    axes.set_xlabel("µs (logarithmic)")
    axes.set_title(title)
    return _with_legend(axes)


def _draw_sweep(data: Data, axes: Axes, sweep: Sweep) -> bool:
    for name, points in data["sweeps"].get(sweep.name, {}).items():
        medians = [median(samples) for samples in points.values()]
        colour = _LINES.get(name, _OTHERS)
        axes.plot([int(at) for at in points], medians, marker="o", label=name, color=colour)
    axes.set_xscale("linear" if 0 in sweep.points else "log")
    axes.set_xticks(sweep.points, [_short(point) for point in sweep.points])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.set_xlabel(sweep.varied)
    axes.set_title(sweep.unit)
    return _with_legend(axes)


def _short(number: int) -> str:
    """A number as it fits below an axis: 10k, 1M."""
    for unit, size in (("M", 10**6), ("k", 10**3)):
        if number >= size:
            return f"{number // size}{unit}"
    return str(number)


def _by_powers(axes: Axes) -> None:
    """Numbers on a logarithmic axis, which do not run into each other."""
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.xaxis.set_minor_formatter(NullFormatter())


def _with_legend(axes: Axes) -> bool:
    if axes.has_data():
        axes.figure.legend(loc="outside lower center", ncols=3, fontsize=9)
    return axes.has_data()


def _rows(contestants: int) -> float:
    return 1.1 + _PER_CONTESTANT * contestants


PLOTS = (
    Plot(
        "latencies",
        "For each contestant, the microseconds within which 50, 90 and 99 percent of the calls end",
        _draw_latencies,
        _rows,
    ),
    Plot(
        "distribution",
        "The part of the calls that takes longer than so many microseconds, down to one in 1,000",
        partial(_draw_distribution, measure="sync", title="Calls that take longer than so many µs"),
    ),
    Plot(
        "threads",
        "For each contestant, the calls per second of 16 threads that wait for their results",
        partial(_draw_rates, column="16 threads", title="16 threads that wait for results"),
        _rows,
    ),
    Plot(
        "pipelined",
        "For each contestant, the calls per second with 1,000 calls outstanding",
        partial(_draw_rates, column="pipelined", title="1,000 calls outstanding"),
        _rows,
    ),
    *(
        Plot(
            f"by-{sweep.varied.replace(' ', '-')}",
            f"{sweep.unit} of raw, qam and qam-transient, by {sweep.varied}",
            partial(_draw_sweep, sweep=sweep),
        )
        for sweep in SWEEPS
    ),
)
