"""Tune an optimizer on a DeepOBS test problem: grid, random or Bayesian search.

Every run writes its ordinary result file; <output>/<problem>/<optimizer>/ also gets
tuning_log.json (all settings, best first) and budget.png (best value against trials).

Examples:
    python scripts/tune_deepobs.py mnist_mlp --optimizer Adam --grid lr=1e-4,1e-3,1e-2 --seeds 42 43
    python scripts/tune_deepobs.py mnist_mlp --search random --range lr=1e-4:1 --trials 20
    python scripts/tune_deepobs.py mnist_mlp --search bayesian --sampler gp --range lr=1e-4:1
    python scripts/tune_deepobs.py mnist_mlp --commands jobs

--pack 12 trains twelve settings of a dense problem side by side, each with its ordinary result.
Without --grid, the 36 learning rates of the published baselines are tried. --commands writes one
command per run for a cluster instead of running.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from trainrig.cli import Parser, entry
from trainrig.config import parse_assignments

#: Flags that are arguments of the runner under the same name; None leaves its default.
PASSED_ON = ("batch_size", "num_epochs", "weight_decay", "data_dir", "train_log_interval")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(description=__doc__)
    parser.add_argument("testproblem", help="e.g. mnist_mlp")
    parser.add_argument("--optimizer", default="SGD", help="SGD, Momentum, Adam, or dotted.Class")
    parser.add_argument("--optimizer-name", help="name of the result folder")
    parser.add_argument("--hp", action="append", metavar="NAME=VALUE", help="held fixed")
    parser.add_argument("--search", choices=("grid", "random", "bayesian"), default="grid")
    parser.add_argument("--grid", action="append", metavar="NAME=V1,V2", help="values to combine")
    parser.add_argument("--range", action="append", metavar="NAME=LOW:HIGH", help="where to draw")
    parser.add_argument("--linear", nargs="+", default=[], help="names drawn on a linear scale")
    parser.add_argument("--trials", type=int, default=20, help="random, bayesian: settings (20)")
    parser.add_argument("--sampler", choices=("tpe", "gp", "random"), default="tpe")
    parser.add_argument("--seeds", nargs="+", type=int, help="runs per setting (one, seed 42)")
    parser.add_argument("--metric", help="curve to judge by, e.g. test_losses")
    parser.add_argument("--mode", choices=("final", "best"), default="final")
    parser.add_argument("--pack", type=int, default=1, help="dense problems: settings at once (1)")
    parser.add_argument("--skip_if_exists", action="store_true", help="use results that are there")
    parser.add_argument("--rerun-best", action="store_true", help="with nine further seeds")
    parser.add_argument(
        "--commands", type=Path, metavar="FOLDER", help="write commands, run nothing"
    )
    parser.add_argument("-r", "--random_seed", dest="random_seed", type=int, default=42)
    parser.add_argument("--bs", "--batch_size", dest="batch_size", type=int)
    parser.add_argument("-N", "--num_epochs", dest="num_epochs", type=int)
    parser.add_argument("--wd", "--weight_decay", dest="weight_decay", type=float)
    parser.add_argument("--train_log_interval", type=int)
    parser.add_argument("--data_dir", type=Path)
    parser.add_argument("--output_dir", type=Path, default=Path("results"))
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of one operation (1)")
    return parser.parse_args(argv)


@entry
def main(argv: list[str] | None = None) -> int:
    """Tune, or write the commands."""
    args = parse_args(argv)
    from deepobs.pytorch.tuner.assembly import Space, make_tuner
    from trainrig.device import set_threads

    set_threads(args.threads)
    space = Space(
        grid=args.grid or [],
        ranges=args.range or [],
        linear=args.linear,
        fixed=parse_assignments(args.hp),
    )
    tuner = make_tuner(
        args.optimizer,
        space,
        search=args.search,
        trials=args.trials,
        sampler=args.sampler,
        options={
            "seeds": args.seeds,
            "metric": args.metric,
            "mode": args.mode,
            "optimizer_name": args.optimizer_name,
            "pack": args.pack,
        },
    )
    run = {key: getattr(args, key) for key in PASSED_ON if getattr(args, key) is not None}
    run |= {"skip_if_exists": True} if args.skip_if_exists else {}
    where = {"output_dir": args.output_dir, "random_seed": args.random_seed}
    if args.commands:
        script = "scripts/run_deepobs.py"
        path = tuner.generate_commands_script(
            args.testproblem, script, generation_dir=args.commands, **where, **run
        )
        print(f"wrote {path}")
        return 0
    best = tuner.tune(args.testproblem, rerun_best_setting=args.rerun_best, **where, **run)
    report(tuner, best, args.output_dir / args.testproblem / tuner.runner.optimizer_name)
    return 0


def report(tuner: Any, best: Any, folder: Path) -> None:
    """Print the best setting and draw the budget curve."""
    from deepobs.analyzer.plots import plot_budget
    from trainrig.plotting.style import save_figure

    print(f"best of {len(tuner.trials)}: {best.hyperparams}, {best.metric} {best.mean:.6g}")
    figure = plot_budget({type(tuner).__name__: tuner.budget_curve()}, best.metric)
    for path in [folder / "tuning_log.json", *save_figure(figure, folder / "budget.png")]:
        print(f"wrote {path}")


if __name__ == "__main__":
    raise SystemExit(main())
