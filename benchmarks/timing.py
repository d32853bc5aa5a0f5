"""Speed as ratios inside one process: cases, their timing, the table and the JSON file.

An experiment's ``benchmark.py`` has one function, ``cases(options)``, which names its
configurations and says how each is built; all else is here. A case is a loop of ours and the loops
that it is compared with, which take turns, so that a busy machine slows all of them alike.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from roofline import Peaks, Work, describe_hardware, peak_memory
from trainrig.device import Precision
from trainrig.runs import describe_environment

Loop = Callable[[int], object]
"""Performs that many steps; the clock runs from its call to its return."""


def training_loop(loss: Callable[[], torch.Tensor], optimizer: torch.optim.Optimizer) -> Loop:
    """Return a loop of training steps on whatever batch ``loss`` is of."""

    def loop(steps: int) -> None:
        for _ in range(steps):
            optimizer.zero_grad(set_to_none=True)
            loss().backward()
            optimizer.step()

    return loop


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What every case is built with.

    Attributes:
        device: where it runs.
        threads: torch threads, already set.
        repeats: timings of each loop.
        steps: steps of a timing; ``None`` = the case's own number.
        data_dir: folder of data sets.
    """

    device: torch.device
    threads: int = 1
    repeats: int = 5
    steps: int | None = None
    data_dir: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One configuration, built and ready.

    Attributes:
        loop: ours.
        against: name → loop that it is compared with, one run each; the first is the yardstick
            of the table (a loop in the manner of the reference).
        steps: steps of a timing.
        runs: how many runs one step of ``loop`` advances (K of a pack).
        work: what one step of one run cannot do without; None leaves the floors out.
        precision: of the arithmetic, for the arithmetic floor.
        note: shown below the table.
    """

    loop: Loop
    against: Mapping[str, Loop] = field(default_factory=dict)
    steps: int = 10
    runs: int = 1
    work: Work | None = None
    precision: Precision = "fp32"
    note: str = ""


Cases = Mapping[str, Callable[[], Case]]
"""Name → what builds the case, so that only one is in memory at a time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """What was measured of one case.

    Attributes:
        name: of the case.
        rate: run-steps per second, the median over repeats.
        rates: of each repeat.
        against: name → run-steps per second of each repeat.
        ratios: name → median over repeats of ours / theirs in the same repeat.
        first_step_s: seconds of our very first step, compilation included.
        peak_memory: bytes: on CUDA allocated, else resident in this process; None if unknown.
        arithmetic_floor_s: seconds of one run-step at the machine's measured peak.
        bytes_floor_s: seconds to move the least possible bytes at the measured bandwidth.
        achieved: larger floor / measured time of a run-step.
    """

    name: str
    steps: int
    runs: int
    precision: str
    note: str
    rate: float
    rates: list[float]
    against: dict[str, list[float]]
    ratios: dict[str, float]
    first_step_s: float
    peak_memory: int | None
    arithmetic_floor_s: float | None = None
    bytes_floor_s: float | None = None
    achieved: float | None = None


def run_cases(
    cases: Cases, names: Sequence[str], options: Options, peaks: Peaks
) -> Iterator[Result]:
    """Measure the named cases, or all, yielding each result as it comes.

    Raises:
        ValueError: a name that is not among the cases, or fewer than one repeat.
    """
    for name in names:
        if name not in cases:
            accepted = ", ".join(repr(known) for known in cases)
            raise ValueError(f"--cases {name!r}: unknown; accepted: {accepted}")
    if options.repeats < 1:
        raise ValueError(f"--repeats {options.repeats}: must be at least 1")
    return (measure(name, cases[name], peaks, options) for name in names or cases)


def measure(name: str, build: Callable[[], Case], peaks: Peaks, options: Options) -> Result:
    """Build a case, warm every loop up, then time them in turn."""
    with peak_memory(options.device) as peak:
        case = build()
        first = _seconds(case.loop, 1, options, wall=True)
    for loop in (case.loop, *case.against.values()):
        loop(1)
    steps = options.steps or case.steps
    rates: list[float] = []
    against: dict[str, list[float]] = {other: [] for other in case.against}
    for _ in range(options.repeats):
        rates.append(case.runs * steps / _seconds(case.loop, steps, options))
        for other, loop in case.against.items():
            against[other].append(steps / _seconds(loop, steps, options))
    rate = statistics.median(rates)
    return Result(
        name=name,
        steps=steps,
        runs=case.runs,
        precision=case.precision,
        note=case.note,
        rate=rate,
        rates=rates,
        against=against,
        ratios={
            other: statistics.median(a / b for a, b in zip(rates, theirs, strict=True))
            for other, theirs in against.items()
        },
        first_step_s=first,
        peak_memory=peak.bytes,
        **_floors(case, rate, peaks),
    )


def _seconds(loop: Loop, steps: int, options: Options, *, wall: bool = False) -> float:
    """Time a loop: CPU seconds of one thread, which other processes disturb less, else wall."""
    clock = time.perf_counter if wall or clock_name(options) == "wall" else time.process_time
    _synchronize(options.device)
    started = clock()
    loop(steps)
    _synchronize(options.device)
    return clock() - started


def clock_name(options: Options) -> str:
    """Return what a second is: ``CPU`` time on one CPU thread, else ``wall`` time."""
    return "CPU" if options.device.type == "cpu" and options.threads == 1 else "wall"


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _floors(case: Case, rate: float, peaks: Peaks) -> dict[str, float]:
    flops_per_s = peaks.flops.get(case.precision)
    if case.work is None or flops_per_s is None:
        return {}
    arithmetic, moving = case.work.flops / flops_per_s, case.work.bytes / peaks.bytes_per_s
    return {
        "arithmetic_floor_s": arithmetic,
        "bytes_floor_s": moving,
        "achieved": max(arithmetic, moving) * rate,
    }


def format_results(results: Sequence[Result]) -> str:
    """Return the table as Markdown, the other ratios and the notes below it."""
    header = (
        "case",
        "runs",
        "run-steps/s",
        "ratio to",
        "floors: arithmetic, bytes (ms)",
        "of floor",
        "peak memory",
        "first step",
    )
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    below = []
    for result in results:
        lines.append("| " + " | ".join(_cells(result)) + " |")
        others = list(result.ratios.items())[1:]
        below += [f"{result.name}: {ratio:.2f} x {other}" for other, ratio in others]
        below += [f"{result.name}: {result.note}"] if result.note else []
    return "\n".join([*lines, "", *below]).rstrip()


def _cells(result: Result) -> tuple[str, ...]:
    first = next(iter(result.ratios.items()), None)
    floors, fraction = "", ""
    if result.arithmetic_floor_s is not None and result.bytes_floor_s is not None:
        floors = f"{1e3 * result.arithmetic_floor_s:.3g}, {1e3 * result.bytes_floor_s:.3g}"
        fraction = f"{result.achieved:.0%}"
    memory = "" if result.peak_memory is None else f"{result.peak_memory / 2**20:.0f} MiB"
    return (
        result.name,
        str(result.runs),
        f"{result.rate:.4g}",
        f"{first[1]:.2f} x {first[0]}" if first else "",
        floors,
        fraction,
        memory,
        f"{result.first_step_s:.2f} s",
    )


def describe_results(
    system: str, results: Sequence[Result], peaks: Peaks, options: Options
) -> dict[str, Any]:
    """Return everything measured as plain data, with hardware, versions and command."""
    return {
        "system": system,
        "environment": describe_environment(),
        "hardware": describe_hardware(options.device),
        "threads": options.threads,
        "clock": clock_name(options),
        "repeats": options.repeats,
        "peaks": asdict(peaks),
        "results": [asdict(result) for result in results],
    }
