"""``--profile``: a trace of a few steps and one screen that says where the time goes.

Works for every training loop: steps are counted where an optimizer steps (or a graph is replayed),
so the loops know nothing of it.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainrig.files import write_atomically

WAIT_STEPS = 10
"""Steps before the recording begins: warm-up, compilation, the capture of a graph."""
ACTIVE_STEPS = 10
GROUPS = {
    "optimizer": r"_fused_(adam|adamw|sgd)|Fused(Adam|Sgd)|_foreach|multi_tensor|^Optimizer",
    "convolutions": r"conv|cudnn|wgrad|dgrad|fprop",
    "attention, softmax": r"softmax|attention|flash|fmha",
    "normalisation": r"batch_norm|layer_norm|LayerNorm|bn_(fw|bw)|batchnorm",
    "matrix products": r"mm\b|addmm|bmm|matmul|gemm|gemv|cutlass|linear",
    "pooling": r"pool",
    "compiled": r"CompiledFxGraph|^triton",
    "random numbers": r"random|uniform|normal_|bernoulli|exponential|philox|distribution",
    "memory, indexing": r"copy|[Mm]emcpy|[Mm]emset|fill|zero_|cat\b|index|gather|scatter|embedding"
    r"|clone|sort",
    "elementwise, sums": r"add|sub|mul|div|relu|gelu|threshold|clamp|sum|mean|pow|where|elementwise"
    r"|reduce|exp|log|eq|ge\b|lt\b|sigmoid|tanh",
}
"""Group of operators or kernels → pattern of their names; the first that matches counts."""


@dataclass(frozen=True, slots=True)
class Span:
    """An operator or kernel: name, begin and end in microseconds, time of its own."""

    name: str
    start: float
    end: float
    own: float


@dataclass(kw_only=True, slots=True)
class Summary:
    """What one screen shows.

    Attributes:
        device: ``cpu`` or ``cuda``; whose time is meant.
        steps: recorded.
        span_ms: wall time of the recording, per step.
        busy_ms: time in operators (CPU) or kernels (CUDA), overlaps counted once, per step.
        calls: operators or kernels per step.
        gap_us: median gap between neighbours.
        groups: group → ms per step of their own.
        top: (name, ms per step, calls per step), the longest first.
    """

    device: str
    steps: int
    span_ms: float
    busy_ms: float
    calls: float
    gap_us: float
    groups: dict[str, float] = field(default_factory=dict)
    top: list[tuple[str, float, float]] = field(default_factory=list)

    @property
    def idle(self) -> float:
        """Share of the time in which the device had nothing to do (CPU: no operator ran)."""
        return max(0.0, 1.0 - self.busy_ms / self.span_ms)

    def text(self) -> str:
        """Return the screen."""
        what = "kernels" if self.device == "cuda" else "operators"
        lines = [
            f"{self.steps} steps on {self.device}: {self.span_ms:.2f} ms per step, of which "
            f"{what} {self.busy_ms:.2f} ms; idle share {self.idle:.1%}",
            f"{self.calls:.0f} {what} per step, median gap {self.gap_us:.1f} us",
            "",
            f"{'group':<22}{'ms/step':>10}{'share':>8}",
        ]
        total = sum(self.groups.values()) or 1.0
        for name, ms in sorted(self.groups.items(), key=lambda item: -item[1]):
            lines.append(f"{name:<22}{ms:>10.3f}{ms / total:>8.1%}")
        lines += ["", f"{'longest ' + what:<60}{'ms/step':>10}{'calls':>8}"]
        lines += [f"{name[:58]:<60}{ms:>10.3f}{calls:>8.1f}" for name, ms, calls in self.top]
        return "\n".join(lines)


def summarize(spans: Sequence[Span], *, device: str, steps: int, seconds: float) -> Summary:
    """Reduce spans (of one device, nested ones included) to a summary.

    Args:
        spans: in any order.
        device: ``cpu`` or ``cuda``.
        steps: that they come from.
        seconds: wall time of the recording.
    """
    gaps: list[float] = []
    busy, reached = 0.0, None
    outer = 0
    for span in sorted(spans, key=lambda s: (s.start, -s.end)):
        if reached is None or span.start >= reached:
            gaps += [] if reached is None else [span.start - reached]
            busy += span.end - span.start
            outer += 1
            reached = span.end
        elif span.end > reached:  # overlapping, as on several streams
            busy += span.end - reached
            reached = span.end
    groups: dict[str, float] = {}
    own: dict[str, list[float]] = {}
    for span in spans:
        group = group_of(span.name)
        groups[group] = groups.get(group, 0.0) + span.own / 1e3 / steps
        own.setdefault(span.name, []).append(span.own)
    longest = sorted(own, key=lambda name: -sum(own[name]))[:10]
    return Summary(
        device=device,
        steps=steps,
        span_ms=1e3 * seconds / steps,
        busy_ms=busy / 1e3 / steps,
        calls=outer / steps,
        gap_us=statistics.median(gaps) if gaps else 0.0,
        groups=groups,
        top=[(name, sum(own[name]) / 1e3 / steps, len(own[name]) / steps) for name in longest],
    )


def group_of(name: str) -> str:
    """Return the group of an operator or kernel."""
    for group, pattern in GROUPS.items():
        if re.search(pattern, name):
            return group
    return "other"


class _Recorder:
    """Counts steps, records some of them, and writes what it saw."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.steps = folder, 0
        self.counted: object = None
        self._last: object = None
        self._profiler: Any = None
        self._started = 0.0
        self.summary: Summary | None = None

    def step(self, source: object) -> None:
        """Count a step; of nested optimizers, one is counted.

        Before the recording begins, a source that steps twice in a row takes the place of the one
        counted so far, which was a trial's or that of a graph's warm-up.
        """
        before, self._last = self._last, source
        if source is not self.counted:
            if self.counted is not None and (source is not before or self._profiler is not None):
                return
            self.steps = 0 if self.counted is None else 1
            self.counted = source
        self.steps += 1
        if self.steps == WAIT_STEPS:
            self._start()
        elif self.steps == WAIT_STEPS + ACTIVE_STEPS:
            self.finish()

    def _start(self) -> None:
        import torch
        from torch.profiler import ProfilerActivity, profile

        activities = [ProfilerActivity.CPU]
        if torch.cuda.is_available():
            torch.cuda.synchronize()
            activities.append(ProfilerActivity.CUDA)
        self._profiler = profile(activities=activities)
        self._profiler.start()
        self._started = time.perf_counter()

    def finish(self) -> None:
        """Stop recording, if it began; write trace and summary."""
        profiler, self._profiler = self._profiler, None
        if profiler is None:
            return
        import torch

        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds = time.perf_counter() - self._started
        profiler.stop()
        steps = self.steps - WAIT_STEPS
        if steps < 1:
            return
        device, spans = _spans(profiler.events())
        self.summary = summarize(spans, device=device, steps=steps, seconds=seconds)
        self.folder.mkdir(parents=True, exist_ok=True)
        profiler.export_chrome_trace(str(self.folder / "trace.json.gz"))
        text = self.summary.text() + "\n"
        write_atomically(self.folder / "summary.txt", text)

    def report(self) -> str:
        """Return the screen, or why there is none."""
        if self.summary is None:
            needed = WAIT_STEPS + 1
            return f"profile: nothing recorded; the run took {self.steps} of {needed} steps needed"
        return f"{self.summary.text()}\n{self.folder / 'trace.json.gz'}"


def _spans(events: Any) -> tuple[str, list[Span]]:
    """Return the kernels of a GPU if there are any, else the operators of the CPU."""
    from torch.autograd import DeviceType

    kernels = [e for e in events if e.device_type == DeviceType.CUDA]
    if kernels:
        ranges = [(e.name, e.time_range) for e in kernels]
        return "cuda", [Span(n, r.start, r.end, r.end - r.start) for n, r in ranges]
    return "cpu", [
        Span(e.name, e.time_range.start, e.time_range.end, e.self_cpu_time_total) for e in events
    ]


_recorder: _Recorder | None = None


def mark_step(source: object) -> None:
    """Report a step that no optimizer's ``step`` shows, such as a graph's replay."""
    if _recorder is not None:
        _recorder.step(source)


@contextlib.contextmanager
def profiled(folder: Path | None) -> Iterator[None]:
    """Profile the training inside: ``trace.json.gz`` and ``summary.txt`` in ``folder``.

    Args:
        folder: created if needed; None profiles nothing.
    """
    global _recorder
    if folder is None:
        yield
        return
    from torch.optim.optimizer import register_optimizer_step_post_hook

    _recorder = recorder = _Recorder(folder)
    hook = register_optimizer_step_post_hook(lambda optimizer, *_: recorder.step(optimizer))
    try:
        yield
    finally:
        _recorder = None
        hook.remove()
        recorder.finish()
        print(recorder.report())  # noqa: T201 - what was asked for


def add_profile_flag(parser: argparse._ActionsContainer) -> None:
    """Add ``--profile FOLDER``."""
    parser.add_argument(
        "--profile",
        type=Path,
        metavar="FOLDER",
        help=f"record {ACTIVE_STEPS} steps: a trace, and a summary that is printed (none)",
    )
