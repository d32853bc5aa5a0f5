"""A parity proof under several processor settings: one process for each, one line for each.

Which vector instructions torch uses, and how many threads share a sum, change the last bits of a
float32 result. A proof that holds in one setting only proves little, so each is run in all.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from trainrig.parity import PROCESSOR, SUMMARY

#: Values of ``ATEN_CPU_CAPABILITY`` on x86, each including those before it.
CAPABILITIES = ("default", "avx2", "avx512")
#: What keeps the libraries below torch, and NumPy, from instructions that such a processor lacks.
#: Every x86 processor that is sold has AVX2, so ``default`` limits torch's own kernels alone.
LIBRARY_LIMITS = {
    "avx2": {
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        # by the names of NumPy 2.4 and of earlier ones; it ignores those that it does not know
        "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL "
        "AVX512_ICL AVX512_SPR",
    }
}
#: What sets the number of threads of torch and of the libraries below it and NumPy.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
HEADINGS = ("system", "capability", "threads", "passed", "failed", "unchecked", "seconds")
_WIDTHS = (18, 10, 7, 6, 6, 9, 7)


@dataclass(frozen=True, slots=True)
class Setting:
    """What a proof runs with.

    Attributes:
        capability: one of ``CAPABILITIES``, or the own one of another kind of processor.
        threads: of torch.
    """

    capability: str
    threads: int

    def environment(self) -> dict[str, str]:
        """Return this process's environment, changed to this setting."""
        environment = dict(os.environ)
        environment.pop("ATEN_CPU_CAPABILITY", None)
        if self.capability in CAPABILITIES:
            environment["ATEN_CPU_CAPABILITY"] = self.capability
        threads = dict.fromkeys(THREAD_VARIABLES, str(self.threads))
        return environment | LIBRARY_LIMITS.get(self.capability, {}) | threads


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one run of a proof came to.

    Attributes:
        system: whose proof it was.
        setting: that it ran with.
        counts: checks passed, failed and UNCHECKED; None if the run ended without a summary.
        seconds: of wall time.
        reason: why the run proves nothing, e.g. that it crashed; empty if it gave a verdict.
        failures: the lines of its table that are marked FAIL.
    """

    system: str
    setting: Setting
    counts: tuple[int, int, int] | None
    seconds: float
    reason: str = ""
    failures: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether something was checked and nothing failed."""
        return not self.reason and self.counts is not None and self.counts[1] == 0

    def cells(self) -> tuple[str, ...]:
        """Return a cell for each of ``HEADINGS``."""
        counts = ("-",) * 3 if self.counts is None else tuple(str(count) for count in self.counts)
        setting = (self.setting.capability, str(self.setting.threads))
        return (self.system, *setting, *counts, f"{self.seconds:.1f}")

    def line(self) -> str:
        """Return the run as one line below ``heading()``."""
        return f"{_columns(self.cells())}  {self.reason or ('ok' if self.ok else 'FAIL')}"


def heading() -> str:
    """Return the line above those of the outcomes."""
    return _columns(HEADINGS)


def _columns(cells: Sequence[str]) -> str:
    left = [cell.ljust(width) for cell, width in zip(cells[:2], _WIDTHS[:2], strict=True)]
    right = [cell.rjust(width) for cell, width in zip(cells[2:], _WIDTHS[2:], strict=True)]
    return "  ".join([*left, *right])


def own_capability() -> str:
    """Return the best capability of this processor, in lower case, as torch names it."""
    environment = {k: v for k, v in os.environ.items() if k != "ATEN_CPU_CAPABILITY"}
    code = "import torch; print(torch.backends.cpu.get_cpu_capability())"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise OSError(f"torch cannot be asked for the processor: {_last_line(done.stderr)}")
    return done.stdout.strip().lower()


def capabilities(own: str) -> tuple[str, ...]:
    """Return every capability of a processor whose best one is ``own``.

    >>> capabilities("avx2"), capabilities("sve256")
    (('default', 'avx2'), ('default', 'sve256'))
    """
    if own in CAPABILITIES:
        return CAPABILITIES[: CAPABILITIES.index(own) + 1]
    return ("default", own)


def prove(
    commands: Mapping[str, Sequence[str]], settings: Sequence[Setting], timeout_s: float = 1800.0
) -> Iterator[Outcome]:
    """Run every command in every setting, one process at a time, and yield what each came to.

    Args:
        commands: of each system: a program that prints ``trainrig.parity.describe_processor()``
            and a ``Report``'s table, and whose exit status is the report's.
        settings: to run it with.
        timeout_s: seconds after which a run is ended and counts as failed.
    """
    for system, command in commands.items():
        for setting in settings:
            yield _run(system, command, setting, timeout_s)


def _run(system: str, command: Sequence[str], setting: Setting, timeout_s: float) -> Outcome:
    begin = time.monotonic()
    try:
        done = subprocess.run(
            command,
            env=setting.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        seconds = time.monotonic() - begin
        return Outcome(system, setting, None, seconds, f"ended after {timeout_s:g} s")
    seconds = time.monotonic() - begin
    lines = done.stdout.splitlines()
    summary = SUMMARY.fullmatch(lines[-1]) if lines else None
    counts = None if summary is None else (int(summary[1]), int(summary[2]), int(summary[3]))
    failures = tuple(line for line in lines if re.search(r"\sFAIL(\s|$)", line))
    reason = _why_no_proof(setting, counts, done, lines)
    return Outcome(system, setting, counts, seconds, reason, failures)


def _why_no_proof(
    setting: Setting,
    counts: tuple[int, int, int] | None,
    done: subprocess.CompletedProcess[str],
    lines: Sequence[str],
) -> str:
    """Return why a run is no proof, whatever it counted; empty if it is one."""
    if counts is None or (done.returncode != 0 and counts[1] == 0 and counts[0] > 0):
        return f"crashed with {_status(done.returncode)}: {_last_line(done.stderr)}"
    if counts[0] + counts[1] == 0:
        return "nothing was checked"
    if done.returncode == 0 and counts[1] > 0:
        return "exit status 0 in spite of failures"
    processor = next((match for match in map(PROCESSOR.fullmatch, lines) if match), None)
    if processor is None:
        return "does not say which processor setting it ran with"
    found = Setting(processor[1].lower(), int(processor[2]))
    return "" if found == setting else f"ran with {found.capability}, threads: {found.threads}"


def _status(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit status {code}"


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no message"
