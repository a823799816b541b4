"""The plots, as PNG files; drawn without a screen."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tests.benchmarks.figures import median
from tests.benchmarks.results import Results
from tests.benchmarks.sweeps import SWEEPS, Sweep

_SIZE = (9, 5.5)  # inches
_DISTRIBUTIONS = {
    "sync": "A call and its result",
    "polling": "A callback whose state is polled",
    "beside CPU-bound": "A call and its result, beside one computing thread",
}


def draw(results: Results, folder: Path) -> None:
    """All plots for which there are samples."""
    folder.mkdir(parents=True, exist_ok=True)
    for measure, title in _DISTRIBUTIONS.items():
        _draw_distribution(results, measure, title, folder)
    for sweep in SWEEPS:
        _draw_sweep(results, sweep, folder)


def _draw_distribution(results: Results, measure: str, title: str, folder: Path) -> None:
    axes = _axes(title, "µs", "part of the calls that took no longer")
    for contestant, by_measure in results.latencies.items():
        if rounds := by_measure.get(measure):
            axes.ecdf([each for one in rounds for each in one], label=contestant)
    axes.set_xscale("log")
    _save(axes, folder / f"distribution-{_file_name(measure)}.png")


def _draw_sweep(results: Results, sweep: Sweep, folder: Path) -> None:
    axes = _axes(f"By {sweep.varied}", sweep.varied, sweep.unit)
    for contestant, points in results.sweeps.get(sweep.name, {}).items():
        medians = [median(samples) for samples in points.values()]
        axes.plot(list(points), medians, marker="o", label=contestant)
    axes.set_xscale("linear" if 0 in sweep.points else "log")
    axes.set_ylim(bottom=0)
    _save(axes, folder / f"by-{_file_name(sweep.varied)}.png")


def _axes(title: str, x: str, y: str) -> Axes:
    figure = Figure(_SIZE, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(title=title, xlabel=x, ylabel=y)
    axes.grid(alpha=0.3)
    return axes


def _save(axes: Axes, path: Path) -> None:
    if axes.has_data():
        axes.legend()
        axes.figure.savefig(path, dpi=120)


def _file_name(text: str) -> str:
    return text.lower().replace(" ", "-")
