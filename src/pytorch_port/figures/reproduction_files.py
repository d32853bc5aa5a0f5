"""Published experiments from run directories to tables: the plan, our curves, both numbers.

``plan.csv``: every run of every figure and how far it is. ``curves.csv``: every evaluation.
``comparison.csv``: each published number beside ours at the same step or, from runs that are not of
the published setting, at their end; ``comparable`` says which. Then one figure per figure there.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from pytorch_port.config.runtime import Runtime
from pytorch_port.config.schema import IclConfig
from pytorch_port.data.inputs import FINAL_REGIMES
from pytorch_port.figures.figure3a import PanelName, evaluations_of_run
from pytorch_port.figures.published import FIGURE2, FIGURE6, FIGURE7, Curve, Regime, figure3_curve
from pytorch_port.figures.reproduction import BASE_JSON, Condition, Planned, Whole, whole_plan
from pytorch_port.train.evaluation import evaluate_run
from trainrig.config import to_dict
from trainrig.files import write_json
from trainrig.report.records import HEADLINE_EVALUATIONS, mean_of_last
from trainrig.runs import read_status
from trainrig.stats import mean_and_sd
from trainrig.summaries import left_out_text, summary_lock, warn
from trainrig.tracking.tables import Row, write_table

#: Behind Fig. 6, which has no curves.
FINALS_CSV = "finals.csv"
PLAN_COLUMNS = (
    *("figure", "label", "run", "seed", "status", "step", "steps"),
    *("in_grid", "differs"),
)
CURVE_COLUMNS = ("figure", "label", "seed", "step", "in_context", "in_weights")
FINAL_COLUMNS = ("label", "seed", "step", "quantity", "value")
COMPARISON_COLUMNS = (
    "figure",
    "label",
    "quantity",
    "published_step",
    "published",
    "published_low",
    "published_high",
    "our_step",
    "ours_mean",
    "ours_sd",
    "n_seeds",
    "comparable",
)
#: The two accuracies of the paper: panel of Fig. 3 (a holdout, b no support) and scalar.
QUANTITIES: dict[str, tuple[PanelName, str]] = {
    "in_context": ("a", "accuracy_closed"),
    "in_weights": ("b", "accuracy_query"),
}
LAST_SHARE = 0.2
"""Fig. 6 averages over the last fifth of training (400k to 500k steps)."""


def is_published_setting(config: IclConfig) -> bool:
    """Say whether a run's numbers may be held against the published ones, steps aside."""
    return (
        config.embedding.example_encoding == "resnet"
        and not config.preproc.downsample
        and config.transformer.num_layers == config.rnn.num_layers == 12
        and config.training.batch_size == 32
        and config.data.source != "synthetic"
    )


def plan_rows(whole: Whole, folder: Path) -> list[Row]:
    """Return the plan with the state of every run, and the runs that are left out."""
    rows = []
    for planned, differs in (*((one, None) for one in whole.plan), *whole.left_out):
        status = read_status(folder / planned.run.name)
        rows.append(
            {
                "figure": planned.condition.figure,
                "label": planned.condition.label,
                "run": planned.run.name,
                "seed": planned.seed,
                "status": status["status"],
                "step": status.get("step", 0),
                "steps": planned.run.config.training_steps,
                "in_grid": int(planned.run.name in whole.asked),
                "differs": differs,
            }
        )
    return rows


def curve_rows(plan: Sequence[Planned], folder: Path) -> list[Row]:
    """Return every evaluation of every run that has any, in ascending steps."""
    rows = []
    for planned in plan:
        steps: dict[int, dict[str, Any]] = defaultdict(dict)
        logs = folder / planned.run.name / "logs"
        if not (logs / "metrics.jsonl").exists():
            continue
        for quantity, (panel, scalar) in QUANTITIES.items():
            for row in evaluations_of_run(planned.run.class_count, logs, panel, relative_to=folder):
                steps[row["step"]][quantity] = row[scalar]
        facts = {"figure": planned.condition.figure, "label": planned.condition.label}
        rows += [
            {**facts, "seed": planned.seed, "step": step, **values}
            for step, values in sorted(steps.items())
            if len(values) == len(QUANTITIES) and None not in values.values()
        ]
    return rows


def final_rows(plan: Sequence[Planned], folder: Path, runtime: Runtime) -> list[Row]:
    """Return, for Fig. 6, in-weights accuracy on the most common and on the rare classes.

    Measured on the last checkpoint of each run that is complete; where the published values are
    means over the last fifth of training, so is our in-context accuracy, taken from the log.
    """
    rows = []
    for planned in plan:
        path = folder / planned.run.name
        if planned.condition.figure != "6" or read_status(path)["status"] != "complete":
            continue
        found = evaluate_run(
            path, device=runtime.device, data_dir=runtime.data_dir, regimes=FINAL_REGIMES
        )
        evaluations = curve_rows([planned], folder)
        last = [r for r in evaluations if r["step"] > (1 - LAST_SHARE) * evaluations[-1]["step"]]
        values = {
            "in_context": sum(r["in_context"] for r in last) / len(last),
            "common": found["accuracy_common"],
            "rare": found["accuracy_rare"],
        }
        facts = {"label": planned.condition.label, "seed": planned.seed}
        step = found["global_step"]
        rows += [
            {**facts, "step": step, "quantity": name, "value": value}
            for name, value in values.items()
        ]
    return rows


def published_points(condition: Condition) -> list[tuple[str, int, float]]:
    """Return what was published for a condition: (quantity, step, accuracy)."""
    curves: list[Curve] = []
    if condition.figure == "2":
        curves = [c for c in FIGURE2 if c.p_bursty == condition.p_bursty]
    if condition.figure == "3":
        found = (figure3_curve(q, condition.classes) for q in get_args(Regime))
        curves = [c for c in found if c is not None]
    points: list[tuple[str, int, float]] = [
        (c.regime, step, value) for c in curves for step, value in c.points
    ]
    if condition.figure == "6":
        names = ("in_context", "common", "rare")
        values = FIGURE6[condition.zipf_exponent]
        points = [(n, 500_000, v) for n, v in zip(names, values, strict=True)]
    return points


def published_range(condition: Condition) -> tuple[str, int, float, float] | None:
    """Return what was published as a range: (quantity, step, lowest, highest accuracy)."""
    if condition.figure != "7":
        return None
    _, (low, high) = FIGURE7[condition.seq_model]
    return "in_context", 500_000, low, high


def comparison_rows(
    plan: Sequence[Planned], curves: Sequence[Row], finals: Sequence[Row]
) -> list[Row]:
    """Return each published number beside ours: mean, spread and number of seeds."""
    comparable = all(is_published_setting(planned.run.config) for planned in plan)
    rows = []
    for condition in dict.fromkeys(planned.condition for planned in plan):
        for quantity, step, published in _published(condition):
            ours = _ours(condition, quantity, step if comparable else None, curves, finals)
            mean, sd = mean_and_sd(list(ours.values())) if ours else (None, None)
            rows.append(
                {
                    "figure": condition.figure,
                    "label": condition.label,
                    "quantity": quantity,
                    "published_step": step,
                    **published,
                    "our_step": max((s for _, s in ours), default=None),
                    "ours_mean": mean,
                    "ours_sd": sd if len(ours) > 1 else None,
                    "n_seeds": len(ours),
                    "comparable": "yes" if comparable and ours else "no",
                }
            )
    return rows


def _published(condition: Condition) -> Iterator[tuple[str, int, dict[str, float | None]]]:
    """Yield what was published for a condition: (quantity, step, columns of the comparison)."""
    for quantity, step, value in published_points(condition):
        yield quantity, step, {"published": value, "published_low": None, "published_high": None}
    if (found := published_range(condition)) is not None:
        quantity, step, low, high = found
        yield quantity, step, {"published": None, "published_low": low, "published_high": high}


def _ours(
    condition: Condition,
    quantity: str,
    step: int | None,
    curves: Sequence[Row],
    finals: Sequence[Row],
) -> Mapping[tuple[int, int], float]:
    """Return (seed, step) → our headline at ``step``, or at the last step where that is None.

    It is the mean of the three evaluations up to that step; for Fig. 6 what ``finals`` holds.
    """
    if condition.figure == "6":
        chosen = [r for r in finals if (r["label"], r["quantity"]) == (condition.label, quantity)]
        return {(r["seed"], r["step"]): r["value"] for r in chosen if step in (None, r["step"])}
    mine = [r for r in curves if (r["figure"], r["label"]) == (condition.figure, condition.label)]
    found = {}
    for seed in dict.fromkeys(row["seed"] for row in mine):
        own = [r for r in mine if r["seed"] == seed and (step is None or r["step"] <= step)]
        mean, _ = mean_of_last(own, quantity, HEADLINE_EVALUATIONS)  # rows are in ascending steps
        if mean is not None and step in (None, own[-1]["step"]):
            found[seed, own[-1]["step"]] = mean
    return found


def write_reproduction(
    base: IclConfig, asked: Sequence[Planned], folder: Path, runtime: Runtime
) -> list[Path]:
    """Write the tables and the figures of all runs that are there, whichever call planned them.

    Raises:
        FileNotFoundError: no run has been evaluated yet.
        ValueError: a damaged ``plan.csv`` of an earlier call.
    """
    with summary_lock(folder):  # two processes may share a plan
        return _write(whole_plan(base, asked, folder), folder, runtime)


def _write(whole: Whole, folder: Path, runtime: Runtime) -> list[Path]:
    plan = whole.plan
    warn([*whole.unread, *(f"{p.run.name}: not shown: {why}" for p, why in whole.left_out)])
    curves = curve_rows(plan, folder)
    if not curves:
        raise FileNotFoundError(f"{folder}: no evaluation of any planned run; train some first")
    finals = final_rows(plan, folder, runtime)
    tables = (
        ("plan.csv", plan_rows(whole, folder), PLAN_COLUMNS),
        ("curves.csv", curves, CURVE_COLUMNS),
        (FINALS_CSV, finals, FINAL_COLUMNS),
        ("comparison.csv", comparison_rows(plan, curves, finals), COMPARISON_COLUMNS),
    )
    written = []
    for name, rows, columns in tables:
        write_table(rows, folder / name, columns)
        written.append(folder / name)
    write_json(folder / BASE_JSON, to_dict(plan[0].run.config))
    from pytorch_port.figures.reproduction_figures import draw_figures

    note = left_out_text([differs for _, differs in whole.left_out])
    return [*written, *draw_figures(plan, curves, finals, folder, note)]
