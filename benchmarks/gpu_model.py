"""What a training step of in-context learning costs, operator by operator, and a model of its time.

    python benchmarks/gpu_model.py [--batch-size 32] [--device cuda]

Operators of a real step are counted as they are called: floating-point operations by torch's own
formulas, bytes as the sizes of all arguments and results. From these a card's time is *modelled*:
an operator takes the longest of its arithmetic, its traffic, and what a node of a graph costs at
least. Nothing here is measured on a GPU; the cards' figures are the makers' and the shares that
are reached of them are assumptions, printed with the table.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten
from torch.utils.flop_counter import flop_registry

from pytorch_port.config.files import load_icl_config
from pytorch_port.config.schema import IclConfig
from pytorch_port.data.inputs import REGIMES, IclInputs
from pytorch_port.train.evaluation import evaluate, step_scalars
from pytorch_port.train.experiment import build
from pytorch_port.train.steps import training_steps
from trainrig.config import apply_overrides
from trainrig.device import choose_device, set_precision
from trainrig.seeding import make_deterministic

CONFIG = "configs/icl/images_all_exemplars.py"
RUNS, STEPS, ROWS_EVERY, EVALUATIONS_EVERY = 10, 50_000, 100, 1000
#: Of the maker's figures, what is assumed to be reached.
SHARE_OF_BANDWIDTH, SHARE_OF_ARITHMETIC = 0.7, 0.4
NODE_S = 1.5e-6
"""What a node of a replayed graph is assumed to take at least, in seconds."""


@dataclass(frozen=True, slots=True)
class Card:
    """A card by its maker's figures: bytes per second, and operations per second by precision."""

    name: str
    bandwidth: float
    fp32: float
    tf32: float
    bf16: float


CARDS = (
    Card("H200", 4.8e12, 67e12, 494e12, 989e12),
    Card("A100 80 GB", 2.0e12, 19.5e12, 156e12, 312e12),
    Card("RTX 4090", 1.0e12, 82.6e12, 82.6e12, 165e12),
)


class Counted(TorchDispatchMode):
    """Within, every operator that is no view is noted: name, operations, bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.operators: list[tuple[str, float, float]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Call the operator and note what it did."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        returns = func._schema.returns
        view = bool(returns) and all(r.alias_info and not r.alias_info.is_write for r in returns)
        if not view:
            given, _ = tree_flatten((args, kwargs))
            taken, _ = tree_flatten(result)
            # A result in place is an argument, too: it is read and written.
            moved = sum(t.nbytes for t in (*given, *taken) if isinstance(t, torch.Tensor))
            formula = flop_registry.get(func._overloadpacket)
            operations = formula(*args, **kwargs, out_val=result) if formula else 0
            self.operators.append((str(func), float(operations), float(moved)))
        return result

    def totals(self) -> dict[str, float]:
        """Return operators, operations and bytes."""
        return {
            "operators": len(self.operators),
            "gflop": sum(flop for _, flop, _ in self.operators) / 1e9,
            "gigabytes": sum(moved for _, _, moved in self.operators) / 1e9,
        }

    def seconds(self, card: Card, precision: str, *, alone: bool = True) -> float:
        """Return the modelled time of what was noted.

        Where many runs share the card, the least time of a node is hidden behind the others.
        """
        speed = SHARE_OF_ARITHMETIC * getattr(card, precision)
        bandwidth = SHARE_OF_BANDWIDTH * card.bandwidth
        parts = ((flop / speed, moved / bandwidth) for _, flop, moved in self.operators)
        return sum(max(NODE_S if alone else 0.0, *part) for part in parts)


def drawn_inputs(config: IclConfig, device: torch.device) -> IclInputs:
    """Return inputs of Omniglot's size, whose images are empty: what is drawn costs nothing."""
    images = torch.zeros(1623, 20, 1, 105, 105, dtype=torch.uint8, device=device)
    return IclInputs(config, device, images, {"image_source": "empty", "synthetic": True})


def count(precision: str, batch_size: int, device: torch.device) -> dict[str, Counted]:
    """Return what a step, a row and an evaluation of both regimes do, after one step."""
    changes: dict[str, Any] = {
        "optimizer.name": "adamw",
        "training.batch_size": batch_size,
        "training.precision": precision,
        "training_steps": 4,
    }
    config = apply_overrides(load_icl_config(CONFIG), changes)
    set_precision(config.training.precision)
    inputs = drawn_inputs(config, device)
    model, optimizer = build(config, inputs)
    steps = training_steps(config, inputs, model, optimizer)
    next(steps)
    found = {name: Counted() for name in ("step", "row", "evaluation")}
    with found["step"]:
        record = next(steps)
    with found["row"]:
        step_scalars(config, inputs, model, record)
    with found["evaluation"]:
        for regime in REGIMES:
            evaluate(model, inputs, config, regime, step=1)
    return found


def sweep_minutes(found: dict[str, Counted], card: Card, precision: str) -> float:
    """Return the modelled minutes of the published sweep: the runs' steps share the card."""
    step, row, evaluation = (found[key].seconds(card, precision, alone=False) for key in found)
    one = step + row / ROWS_EVERY + evaluation / EVALUATIONS_EVERY
    return RUNS * STEPS * one / 60


def rows(batch_size: int, device: torch.device) -> list[dict[str, Any]]:
    """Return the table: one row for each precision and card."""
    table = []
    for precision in ("fp32", "tf32", "bf16"):
        found = count(precision, batch_size, device)
        for card in CARDS:
            row: dict[str, Any] = {"precision": precision, "card": card.name}
            row |= found["step"].totals()
            row["step_ms"] = 1e3 * found["step"].seconds(card, precision)
            row["shared_ms"] = 1e3 * found["step"].seconds(card, precision, alone=False)
            row["sweep_minutes"] = sweep_minutes(found, card, precision)
            table.append(row)
    return table


def text(table: Sequence[dict[str, Any]]) -> str:
    """Return the table as Markdown."""
    lines = [
        "| precision | card | operators | GFLOP | GB | step alone, ms | of ten runs, ms "
        "| sweep, minutes |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in table:
        values = f"{row['operators']} | {row['gflop']:.1f} | {row['gigabytes']:.2f}"
        times = f"{row['step_ms']:.2f} | {row['shared_ms']:.2f} | {row['sweep_minutes']:.0f}"
        lines.append(f"| {row['precision']} | {row['card']} | {values} | {times} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table, modelled, not measured."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--batch-size", type=int, default=32, help="(32)")
    parser.add_argument("--device", default="cuda", help="where the operators are called (cuda)")
    parser.add_argument("--json", action="store_true", help="print the table as JSON")
    options = parser.parse_args(argv)
    make_deterministic()
    table = rows(options.batch_size, choose_device(options.device))
    assumed = f"{SHARE_OF_BANDWIDTH:.0%} of bandwidth, {SHARE_OF_ARITHMETIC:.0%} of arithmetic"
    print(f"modelled, not measured: {assumed}, {1e6 * NODE_S:.1f} us a node")
    print(json.dumps(table) if options.json else text(table))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
