"""Estimate an optimizer's runtime overhead against SGD by alternating runs.

Example:
    python scripts/estimate_deepobs_runtime.py --optimizer Adam --lr 1e-3 --num_runs 5
"""

from __future__ import annotations

import argparse
from pathlib import Path

from trainrig.cli import Parser, entry
from trainrig.config import parse_assignments


def make_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = Parser(description=__doc__)
    parser.add_argument("--optimizer", required=True, help="Adam, or dotted.Class")
    parser.add_argument("--hp", action="append", metavar="NAME=VALUE", help="hyperparameter")
    parser.add_argument("--test_problem", default="mnist_mlp", help="(mnist_mlp)")
    parser.add_argument("--data_dir", type=Path, help="folder of data sets (as run_deepobs.py)")
    size, text = ("--bs", "--batch_size"), "examples per step (128)"
    parser.add_argument(*size, dest="batch_size", type=int, default=128, help=text)
    parser.add_argument("--lr", type=float, default=1e-5, help="learning rate (1e-5)")
    text = "epochs of a run (3)"
    parser.add_argument("-N", "--epochs", dest="num_epochs", type=int, default=3, help=text)
    parser.add_argument("--num_runs", type=int, default=5, help="runs of each optimizer (5)")
    parser.add_argument("--saveto", type=Path, help="also write the figures to this file")
    return parser


@entry
def main(argv: list[str] | None = None) -> int:
    """Measure and print."""
    args = make_parser().parse_args(argv)
    from deepobs.pytorch import config
    from deepobs.pytorch.runners.hyperparameters import specify
    from deepobs.pytorch.runtime import estimate_runtime
    from trainrig.files import write_json
    from trainrig.optim import preset_arguments, resolve_optimizer

    if args.data_dir is not None:
        config.set_data_dir(args.data_dir)
    optimizer_class = resolve_optimizer(args.optimizer)
    hyperparams = {"lr": args.lr} | preset_arguments(args.optimizer) | parse_assignments(args.hp)
    estimate = estimate_runtime(
        optimizer_class,
        specify(optimizer_class),
        hyperparams,
        n_runs=args.num_runs,
        sgd_lr=args.lr,
        testproblem=args.test_problem,
        num_epochs=args.num_epochs,
        batch_size=args.batch_size,
    )
    print(estimate.to_text())
    if args.saveto is not None:
        seconds = {"sgd_s": estimate.sgd.tolist(), "optimizer_s": estimate.optimizer.tolist()}
        write_json(args.saveto, {**seconds, "ratios": estimate.ratios.tolist()})
    return 0
