"""What is measured of each contestant in each round."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tests.benchmarks.figures import enough_calls, percentile
from tests.benchmarks.options import Sizes
from tests.benchmarks.processes import Side

_WARM_UP_CALLS = 100
# Each takes some 10 ms, because Python's threads take turns of 5 ms.
_PART_BESIDE_CPU_BOUND = 4
_LEAST_ECHOES, _MOST_ECHOES = 5, 200


@dataclass(frozen=True)
class Column:
    """A figure."""

    name: str
    unit: str
    more_is_better: bool = False
    #: The column of the reference that it is compared with, if that is another one.
    compared_with: str | None = None
    #: Whether its ratio to the reference says anything.
    compared: bool = True


COLUMNS = (
    Column("sync p50", "µs"),
    Column("sync p90", "µs"),
    Column("sync p99", "µs"),
    Column("pipelined", "calls/s", more_is_better=True),
    Column("16 threads", "calls/s", more_is_better=True),
    Column("polling p50", "µs", compared_with="sync p50"),
    Column("beside CPU p50", "µs"),
    Column("1 MiB echo", "MB/s", more_is_better=True),
    Column("client CPU", "µs/call"),
    Column("server CPU", "µs/call"),
    Column("client threads", "", compared=False),
    Column("server threads", "", compared=False),
)


@dataclass(frozen=True)
class Pair:
    """The two processes of a contestant."""

    server: Side
    client: Side


@dataclass(frozen=True)
class Taken:
    """What a measure has shown, in the units of COLUMNS; latencies are microseconds."""

    figures: Mapping[str, float]
    latencies: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Measure:
    """Something to measure; its columns are what it shows, or what is missing if it fails."""

    name: str
    columns: tuple[str, ...]
    take: Callable[[Pair, Sizes], Taken]


def _microseconds(seconds: list[float]) -> list[float]:
    return [round(each * 1e6, 1) for each in seconds]


def sync(pair: Pair, sizes: Sizes) -> Taken:
    pair.client.do("sync", calls=min(_WARM_UP_CALLS, sizes.calls))
    latencies = _microseconds(pair.client.do("sync", calls=sizes.calls))
    figures = {f"sync p{percent}": percentile(latencies, percent) for percent in (50, 90, 99)}
    return Taken(figures, latencies)


def calls_to_pipeline(pair: Pair, sizes: Sizes, outstanding: int) -> int:
    """How many calls last as long as they should; it is the warm-up, too."""
    trial = min(outstanding, sizes.most_calls)
    seconds = pair.client.do("pipeline", calls=trial, outstanding=outstanding)
    return enough_calls(seconds / trial, sizes.seconds, 2 * outstanding, sizes.most_calls)


def pipelined(pair: Pair, sizes: Sizes) -> Taken:
    calls = calls_to_pipeline(pair, sizes, sizes.outstanding)
    before = pair.client.cpu_seconds(), pair.server.cpu_seconds()
    seconds = pair.client.do("pipeline", calls=calls, outstanding=sizes.outstanding)
    return Taken(
        {
            "pipelined": calls / seconds,
            "client CPU": (pair.client.cpu_seconds() - before[0]) / calls * 1e6,
            "server CPU": (pair.server.cpu_seconds() - before[1]) / calls * 1e6,
            "client threads": pair.client.thread_count(),
            "server threads": pair.server.thread_count(),
        }
    )


def rate_of_threads(pair: Pair, sizes: Sizes, threads: int) -> float:
    """Calls per second of so many threads together."""
    trial = 10 * threads
    seconds = pair.client.do("threads", calls=trial, threads=threads)
    calls = enough_calls(seconds / trial, sizes.seconds, trial, sizes.most_calls)
    calls -= calls % threads
    return calls / pair.client.do("threads", calls=calls, threads=threads)


def threads(pair: Pair, sizes: Sizes) -> Taken:
    return Taken({"16 threads": rate_of_threads(pair, sizes, sizes.threads)})


def polling(pair: Pair, sizes: Sizes) -> Taken:
    pair.client.do("polling", calls=min(_WARM_UP_CALLS, sizes.calls))
    latencies = _microseconds(pair.client.do("polling", calls=sizes.calls))
    return Taken({"polling p50": percentile(latencies, 50)}, latencies)


def beside_cpu_bound(pair: Pair, sizes: Sizes) -> Taken:
    calls = max(_PART_BESIDE_CPU_BOUND, sizes.calls // _PART_BESIDE_CPU_BOUND)
    latencies = _microseconds(pair.client.do("beside_cpu_bound", calls=calls, threads=1))
    return Taken({"beside CPU p50": percentile(latencies, 50)}, latencies)


def seconds_of_echo(pair: Pair, sizes: Sizes, size: int) -> float:
    """Seconds of a call with so many bytes, which are also its result."""
    trial = pair.client.do("echo", calls=_LEAST_ECHOES, size=size)
    most = min(_MOST_ECHOES, sizes.most_calls)
    calls = enough_calls(trial / _LEAST_ECHOES, sizes.seconds, _LEAST_ECHOES, most)
    return pair.client.do("echo", calls=calls, size=size) / calls


def echo(pair: Pair, sizes: Sizes) -> Taken:
    seconds = seconds_of_echo(pair, sizes, sizes.echo_bytes)
    return Taken({"1 MiB echo": sizes.echo_bytes / seconds / 1e6})


_COSTS = ("client CPU", "server CPU", "client threads", "server threads")

MEASURES = (
    Measure("sync", ("sync p50", "sync p90", "sync p99"), sync),
    Measure("pipelined", ("pipelined", *_COSTS), pipelined),
    Measure("threads", ("16 threads",), threads),
    Measure("polling", ("polling p50",), polling),
    Measure("beside CPU-bound", ("beside CPU p50",), beside_cpu_bound),
    Measure("echo", ("1 MiB echo",), echo),
)
