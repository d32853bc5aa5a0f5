"""The table that every parity proof fills: case, quantity, deviation, bound, verdict."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field

#: A report's last line, and the line that says what it was computed with.
SUMMARY = re.compile(r"(\d+) passed, (\d+) failed, (\d+) unchecked")
PROCESSOR = re.compile(r"torch \S+, CPU capability (.+), threads: (\d+)")


def describe_processor() -> str:
    """Return torch's version, its vector instructions in use and its threads, as one line."""
    import torch

    capability = torch.backends.cpu.get_cpu_capability()
    threads = torch.get_num_threads()
    return f"torch {torch.__version__}, CPU capability {capability}, threads: {threads}"


@dataclass(frozen=True, slots=True)
class Row:
    """One checked quantity; ``deviation`` and ``bound`` share the quantity's unit."""

    case: str
    quantity: str
    deviation: float
    bound: float
    ok: bool
    detail: str = ""


@dataclass
class Report:
    """Collects checks and says at the end whether the port stands.

    Nothing checked counts as a failure: an empty directory must not look like a proof.
    """

    rows: list[Row] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)

    def check(
        self, case: str, quantity: str, deviation: float, bound: float, detail: str = ""
    ) -> None:
        """Record a deviation that must not exceed ``bound``; NaN never passes."""
        deviation = float(deviation)
        ok = not math.isnan(deviation) and deviation <= bound
        self.rows.append(Row(case, quantity, deviation, float(bound), ok, detail))

    def equal(self, case: str, quantity: str, ok: bool, detail: str = "") -> None:
        """Record an exact comparison."""
        self.rows.append(Row(case, quantity, 0.0 if ok else math.inf, 0.0, bool(ok), detail))

    def unchecked(self, case: str, reason: str) -> None:
        """Record a file, key or setting that this checker cannot judge."""
        self.skipped.append((case, reason))

    @property
    def failed(self) -> list[Row]:
        """The rows over their bound."""
        return [row for row in self.rows if not row.ok]

    @property
    def exit_code(self) -> int:
        """0 only if something was checked and nothing failed."""
        return 0 if self.rows and not self.failed else 1

    def summary(self) -> str:
        """The last line: ``N passed, N failed, N unchecked``."""
        passed = len(self.rows) - len(self.failed)
        return f"{passed} passed, {len(self.failed)} failed, {len(self.skipped)} unchecked"

    def table(self) -> str:
        """All rows as aligned text, failures marked, then UNCHECKED items, then the summary."""
        header = ("case", "quantity", "deviation", "bound", "ok")
        cells = [
            (r.case, r.quantity, f"{r.deviation:.3g}", f"{r.bound:.3g}", "ok" if r.ok else "FAIL")
            for r in self.rows
        ]
        widths = [max(len(row[i]) for row in [header, *cells]) for i in range(len(header))]
        details = ["", *(row.detail for row in self.rows)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            + (f"  {detail}" if detail else "")
            for row, detail in zip([header, *cells], details, strict=True)
        ]
        lines += [f"UNCHECKED  {case}: {reason}" for case, reason in self.skipped]
        if not self.rows:
            lines.append("nothing was checked: that is a failure")
        return "\n".join([*lines, self.summary()])
