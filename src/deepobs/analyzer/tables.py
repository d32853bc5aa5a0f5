"""Performance tables as rows, CSV, Markdown and LaTeX."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import asdict, dataclass, replace
from typing import Any

from deepobs.analyzer.aggregate import (
    Summary,
    best_setting,
    choose_metric,
    is_loss,
    of_length,
    published_moments,
    published_speed,
    published_value,
    speed_text,
    summarise,
)
from deepobs.analyzer.baselines import OPTIMIZERS, load_baselines
from deepobs.analyzer.results import Results, Setting, optimizer_order
from trainrig.stats import LEVEL, holm, t_interval, welch

PUBLISHED = "published"


@dataclass(frozen=True)
class Row:
    """One optimizer on one problem.

    Attributes:
        source: ``run`` or ``published``.
        epochs: length of the runs.
        performance: final mean of the metric.
        std: population deviation over seeds.
        speed: mean epochs to the convergence threshold, over the runs that reach it.
        reached: how many runs reach it; None without a threshold.
        tunability: the setting, e.g. ``lr 1.58e-02, momentum 0.99``.
        verdict: against the best published baseline on this problem after as many epochs.
        p_value: of Welch's test behind the verdict, Holm-corrected over the table; None where
            nothing was tested.
    """

    testproblem: str
    optimizer: str
    source: str
    metric: str
    n: int
    epochs: int
    performance: float
    std: float
    low: float
    high: float
    speed: float | None
    reached: int | None
    tunability: str
    verdict: str
    p_value: float | None = None

    @property
    def performance_text(self) -> str:
        """The final value as a table shows it; of one run there is no deviation."""
        if math.isnan(self.performance):
            return "diverged"
        return f"{self.performance:.5g}" + (f" ± {self.std:.2g}" if self.n > 1 else "")

    @property
    def speed_text(self) -> str:
        """The speed as a table shows it."""
        return speed_text(self.speed, self.reached, self.n, self.epochs)


@dataclass(frozen=True)
class _Comparison:
    """With the published optimizer that is best on this problem after as many epochs."""

    name: str
    better: bool
    p: float

    def verdict(self, p: float) -> str:
        """Return the words for a corrected p-value."""
        if math.isnan(p):
            return f"not tested against published {self.name}: one seed"
        if p >= LEVEL:
            return f"not distinguishable from published {self.name}"
        return f"{'better' if self.better else 'worse'} than published {self.name}"


def make_rows(results: Results, mode: str = "most", metric: str | None = None) -> list[Row]:
    """Return a row per problem, optimizer and length, and the published ones of the same problems.

    The verdicts of all rows are one family: their p-values are Holm-corrected together.
    """
    rows: list[Row] = []
    compared: dict[int, _Comparison] = {}
    for problem in results.testproblems:
        for optimizer in results.optimizers(problem):
            settings = results.of(problem, optimizer)
            for epochs in sorted({s.runs[0].num_epochs for s in settings}, reverse=True):
                setting = best_setting(results, problem, optimizer, mode, metric, epochs)
                assert setting is not None  # there is one of this length
                chosen = choose_metric(of_length(settings, epochs), metric)
                summary = summarise(setting, chosen)
                found: _Comparison | str = "not compared: the published runs have no repaired data"
                if not setting.repaired:
                    found = _compare(problem, chosen, summary, epochs)
                if isinstance(found, _Comparison):
                    compared[len(rows)] = found
                rows.append(_row(problem, optimizer, setting, chosen, summary, found))
        rows += _published_rows(problem)
    corrected = holm([comparison.p for comparison in compared.values()])
    for (place, comparison), p in zip(compared.items(), corrected, strict=True):
        tested = None if math.isnan(p) else p
        rows[place] = replace(rows[place], verdict=comparison.verdict(p), p_value=tested)
    return rows


def _row(
    problem: str,
    optimizer: str,
    setting: Setting,
    metric: str,
    summary: Summary,
    found: _Comparison | str,
) -> Row:
    return Row(
        testproblem=problem,
        optimizer=optimizer,
        source="run",
        metric=metric,
        n=summary.n,
        epochs=setting.runs[0].num_epochs,
        performance=summary.mean,
        std=summary.std,
        low=summary.low,
        high=summary.high,
        speed=summary.speed,
        reached=summary.reached,
        tunability=describe(setting.hyperparams) + ", compat fixed" * setting.repaired,
        verdict=found if isinstance(found, str) else "",
    )


def tests_note(rows: list[Row]) -> str:
    """Return the sentence that says how the verdicts were reached; empty where there are none."""
    count = sum(row.p_value is not None for row in rows)
    if not count:
        return ""
    among = f", Holm-corrected over the {count} comparisons of this table" if count > 1 else ""
    return f"Verdicts: Welch's t-test over seeds at the 5 % level{among}."


def describe(hyperparams: dict[str, Any]) -> str:
    """Return a setting in short: the learning rate with two decimals, the rest as it is."""
    parts = [f"lr {hyperparams['lr']:.2e}"] if hyperparams.get("lr") is not None else []
    parts += [f"{key} {value}" for key, value in sorted(hyperparams.items()) if key != "lr"]
    return ", ".join(parts)


def _published_rows(problem: str) -> list[Row]:
    rows = []
    for row in load_baselines().rows:
        if row["tp"] != problem:
            continue
        metric = "test_accuracies" if "test_accuracies" in row else "test_losses"
        low, high = t_interval(published_moments(row, metric, row["N"]))
        rows.append(
            Row(
                problem,
                OPTIMIZERS[row["opt"]],
                PUBLISHED,
                metric,
                row["n"],
                row["N"],
                row[metric]["final_mean"],
                row[metric]["final_std"],
                low,
                high,
                published_speed(row),
                row["nconv"],
                describe({"lr": row["lr"], **row["hp"]}),
                "",
            )
        )
    return sorted(rows, key=lambda r: optimizer_order(r.optimizer))


def _compare(problem: str, metric: str, summary: Summary, epochs: int) -> _Comparison | str:
    """Compare with the best published optimizer, or say why there is no comparison."""
    candidates = [row for row in load_baselines().rows if row["tp"] == problem and metric in row]
    if not candidates:
        return "no published baseline"
    if math.isnan(summary.mean):
        return "diverged"
    longest = max(row["N"] for row in candidates)
    candidates = [row for row in candidates if epochs <= row["N"]]
    if not candidates:
        return f"published runs end at epoch {longest}"
    sign = 1.0 if is_loss(metric) else -1.0
    means = [sign * published_value(row, metric, epochs)[0] for row in candidates]
    best = min(range(len(means)), key=means.__getitem__)
    name = OPTIMIZERS[candidates[best]["opt"]]
    early = f" at epoch {epochs}" if epochs < candidates[best]["N"] else ""
    test = welch(summary.moments, published_moments(candidates[best], metric, epochs))
    return _Comparison(name + early, sign * summary.mean < means[best], test.p)


HEADER = (
    "problem",
    "optimizer",
    "source",
    "n",
    "epochs",
    "performance",
    "speed",
    "tunability",
    "verdict",
)


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.testproblem,
        row.optimizer,
        row.source,
        str(row.n),
        str(row.epochs),
        row.performance_text,
        row.speed_text,
        row.tunability,
        row.verdict,
    )


def to_markdown(rows: list[Row]) -> str:
    """Return a Markdown table."""
    lines = ["| " + " | ".join(HEADER) + " |", "|" + " --- |" * len(HEADER)]
    lines += ["| " + " | ".join(_cells(row)) + " |" for row in rows]
    notes = [note for note in (tests_note(rows), lengths_note(rows)) if note]
    return "\n".join(lines) + "\n" + "".join(f"\n{note}\n" for note in notes)


def lengths_note(rows: list[Row]) -> str:
    """Return the sentence on rows of unequal length; empty where there are none."""
    lengths: dict[str, set[int]] = {}
    for row in rows:
        lengths.setdefault(row.testproblem, set()).add(row.epochs)
    if all(len(found) == 1 for found in lengths.values()):
        return ""
    return (
        "Rows of unequal numbers of epochs are not on one scale: each is ranked among its equals, "
        "and compared with published curves at its own length."
    )


def to_csv(rows: list[Row]) -> str:
    """Return all fields of all rows as CSV; what does not exist (one run's deviation) is empty."""
    out = io.StringIO()
    names = list(Row.__dataclass_fields__)
    writer = csv.DictWriter(out, names, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        fields = asdict(replace(row, std=row.std if row.n > 1 else math.nan))
        absent = [key for key, value in fields.items() if value != value]
        writer.writerow(fields | dict.fromkeys(absent, ""))
    return out.getvalue()


def to_latex(rows: list[Row]) -> str:
    r"""Return a LaTeX table: each problem's performances and speeds coloured by min-max rank.

    Rows are ranked among those of as many epochs; a speed that not all runs have has no colour.
    Green is best; colours need ``\usepackage[table]{xcolor}``.
    """
    lines = [
        r"\begin{tabular}{llllllll}",
        r"problem & optimizer & source & $n$ & epochs & performance & speed & tunability \\ \hline",
    ]
    for row in rows:
        alike = (row.testproblem, row.epochs)
        peers = [other for other in rows if (other.testproblem, other.epochs) == alike]
        sign = -1.0 if is_loss(row.metric) else 1.0
        rank = _rank(sign * row.performance, [sign * other.performance for other in peers])
        spread = rf" \pm {row.std:.2g}" if row.n > 1 else ""
        value = f"${row.performance:.4g}{spread}$"
        value = "diverged" if math.isnan(row.performance) else value
        speed = row.speed_text
        if row.speed is not None and row.reached == row.n:
            whole = [p.speed for p in peers if p.speed is not None and p.reached == p.n]
            speed = _coloured(speed, _rank(-row.speed, [-peer for peer in whole]))
        cells = (
            row.testproblem.replace("_", r"\_"),
            row.optimizer.replace("_", r"\_"),
            row.source,
            str(row.n),
            str(row.epochs),
            value if math.isnan(row.performance) else _coloured(value, rank),
            speed,
            row.tunability.replace("_", r"\_"),
        )
        lines.append(" & ".join(cells) + r" \\")
    return "\n".join([*lines, r"\end{tabular}"]) + "\n"


def _rank(value: float, peers: list[float]) -> float:
    finite = [peer for peer in peers if not math.isnan(peer)]
    if math.isnan(value) or not finite:
        return 0.0
    low, high = min(finite), max(finite)
    return 100.0 if high == low else 100 * (value - low) / (high - low)


def _coloured(text: str, rank: float) -> str:
    shown = rf"\textcolor{{white}}{{{text}}}" if rank < 50 else text
    return rf"\cellcolor{{green!{rank:.0f}!red}}{shown}"
