"""The published experiments as runs: which conditions, which settings, one plan for all figures.

Chan et al. 2022: Fig. 2 varies the share of bursty sequences, Fig. 3 the number of training
classes, Fig. 6 the Zipf exponent of class frequencies, Fig. 7 the sequence model. A condition that
two figures share is one run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytorch_port.config.schema import IclConfig
from pytorch_port.sweep.grid import SAME_NUMBERS, SweepRun, is_ours, stored
from trainrig.config import apply_overrides
from trainrig.summaries import differences, exact, run_configs
from trainrig.tracking.tables import Column, read_table

FIGURES = ("2", "3", "6", "7")
AUGMENTED = 12_800
#: The sequence models that Fig. 7 compares, in its order.
SEQ_MODELS = ("transformer", "lstm", "vanilla_rnn")

#: Presets: the configuration file, then what overrides it; flags override both.
#: Beside the tables of a reproduction: the configuration of its first planned run.
BASE_JSON = "base.json"
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "paper": {"config_path": Path("configs/icl/images_all_exemplars.py"), "overrides": {}},
    "quick": {
        "config_path": Path("configs/icl/quick.py"),
        "overrides": {"rnn.num_layers": 2, "training.eval_interval": 250},
    },
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Condition:
    """One line (or point) of a figure.

    Attributes:
        figure: of the paper.
        label: what the figure varies, e.g. ``p_bursty = 0.5``.
        p_bursty: share of bursty training sequences.
        classes: training classes, 100, 1600 or 12800 (every drawing class in eight views).
        zipf_exponent: of the training classes' frequencies.
        seq_model: see ``model.SEQ_MODELS``.
        n_common: the most frequent classes, which Fig. 6 tests apart.
    """

    figure: str
    label: str
    p_bursty: float = 0.9
    classes: int = 1600
    zipf_exponent: float = 0.0
    seq_model: str = "transformer"
    n_common: int | None = None

    @property
    def run_name(self) -> str:
        """The run's folder: equal for equal settings, whatever the figure."""
        common = "" if self.n_common is None else f"_common{self.n_common}"
        return (
            f"bursty{exact(self.p_bursty)}_classes{self.classes}{common}"
            f"_zipf{exact(self.zipf_exponent)}_{self.seq_model}"
        )

    def overrides(self) -> dict[str, Any]:
        """Return what the condition sets in a configuration."""
        generator = "data.generator_config."
        values: dict[str, Any] = {
            "data.seq_config.p_bursty": self.p_bursty,
            f"{generator}zipf_exponent": self.zipf_exponent,
            "seq_model": self.seq_model,
        }
        rare, common, holdout = {100: (90, 10, 10), 1600: (1603, 10, 10)}.get(
            self.classes, (12_700, 100, 80)
        )
        if self.n_common is not None:
            rare, common = rare + common - self.n_common, self.n_common
        counts = {"n_rare_classes": rare, "n_common_classes": common, "n_holdout_classes": holdout}
        values |= {f"{generator}{name}": count for name, count in counts.items()}
        if self.classes == AUGMENTED:
            values["data.omniglot_config.augment_images"] = True
            values[f"{generator}preserve_ordering_every_n"] = 8
        return values


CONDITIONS = (
    *(Condition(figure="2", label=f"p_bursty = {p:g}", p_bursty=p) for p in (0.0, 0.5, 0.9, 1.0)),
    *(Condition(figure="3", label=f"{n} classes", classes=n) for n in (100, 1600, AUGMENTED)),
    *(
        Condition(figure="6", label=f"{z:g}", classes=AUGMENTED, zipf_exponent=z, n_common=10)
        for z in (0.0, 0.5, 1.0, 1.5, 2.0, 3.0)
    ),
    *(Condition(figure="7", label=m.replace("_", " "), seq_model=m) for m in SEQ_MODELS),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Planned:
    """A condition with one seed, and its run."""

    condition: Condition
    seed: int
    run: SweepRun


def make_plan(base: IclConfig, figures: Sequence[str], seeds: Sequence[int]) -> list[Planned]:
    """Return every condition of the figures with every seed; shared runs are equal objects.

    Raises:
        ValueError: an unknown figure, seeds or figures given twice, or a bad value.
    """
    for name, values in (("--figures", figures), ("--seeds", seeds)):
        if not values or len(set(values)) < len(values):
            raise ValueError(f"{name} {' '.join(map(str, values))}: give different values")
    unknown = [figure for figure in figures if figure not in FIGURES]
    if unknown:
        raise ValueError(f"--figures {unknown[0]}: unknown; accepted: {', '.join(FIGURES)}")
    plan: list[Planned] = []
    runs: dict[str, SweepRun] = {}
    for condition in CONDITIONS:
        if condition.figure not in figures:
            continue
        for seed in seeds:
            name = f"{condition.run_name}_seed{seed}"
            if name not in runs:
                config = apply_overrides(base, condition.overrides() | {"seed": seed}, name)
                count = config.data.generator_config.n_classes
                runs[name] = SweepRun(name=name, class_count=count, config=config)
            plan.append(Planned(condition=condition, seed=seed, run=runs[name]))
    return plan


@dataclass(frozen=True, kw_only=True, slots=True)
class Whole:
    """What the tables of a folder hold: this call's plan, and what earlier calls have left.

    Attributes:
        plan: what is drawn together.
        left_out: planned runs of the folder with other settings, and what differs.
        asked: names of the runs of this call.
        unread: messages about what could not be read.
    """

    plan: list[Planned]
    left_out: list[tuple[Planned, str]]
    asked: frozenset[str]
    unread: list[str]


def whole_plan(base: IclConfig, plan: Sequence[Planned], folder: Path) -> Whole:
    """Return this call's plan with the runs of the folder that other calls have planned there.

    Args:
        base: the configuration of every run but for its condition and seed.
        plan: of this call.
        folder: of the runs and of an earlier ``plan.csv``, which names the figures asked for.

    Raises:
        ValueError: a damaged ``plan.csv``.
    """
    configs, unread = run_configs(folder, is_ours)
    earlier = folder / "plan.csv"
    rows = read_table(earlier, {"figure": Column(str)}) if earlier.exists() else []
    figures = {planned.condition.figure for planned in plan} | {row["figure"] for row in rows}
    seeds = {planned.seed: None for planned in plan}
    seeds |= dict.fromkeys(sorted({config["seed"] for config in configs.values()}))
    asked = {(planned.condition, planned.seed): planned for planned in plan}
    every = make_plan(base, [figure for figure in FIGURES if figure in figures], list(seeds))
    kept, left_out = [], []
    for planned in every:
        mine = asked.get((planned.condition, planned.seed))
        present = configs.get(planned.run.name)
        if mine is None and present is None:
            continue
        free = (*SAME_NUMBERS, *(("training_steps",) if mine is not None else ()))
        differs = "" if present is None else differences(stored(planned.run.config), present, free)
        if differs:
            left_out.append((planned, differs))
        else:
            kept.append(mine or planned)
    names = frozenset(planned.run.name for planned in plan)
    return Whole(plan=kept, left_out=left_out, asked=names, unread=unread)


def runs_of(plan: Sequence[Planned]) -> list[SweepRun]:
    """Return the plan's runs, each once, in its order."""
    return list({planned.run.name: planned.run for planned in plan}.values())


def take_slice(runs: Sequence[SweepRun], text: str | None) -> list[SweepRun]:
    """Return every N-th run from the I-th on for ``"I/N"``, so that N processes share a plan.

    >>> take_slice(["a", "b", "c", "d", "e"], "2/3")
    ['b', 'e']

    Raises:
        ValueError: anything but 1 <= I <= N.
    """
    if text is None:
        return list(runs)
    first, _, count = text.partition("/")
    if not (first.isdecimal() and count.isdecimal() and 1 <= int(first) <= int(count)):
        raise ValueError(f"--slice {text}: give I/N with 1 <= I <= N, such as 1/3")
    return list(runs[int(first) - 1 :: int(count)])
