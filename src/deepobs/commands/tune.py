"""Tune an optimizer on a DeepOBS test problem: grid, random or Bayesian search.

Every run writes its ordinary result file; <output>/<problem>/<optimizer>/ also gets
tuning_log.json (all settings, best first) and budget.png (best value against trials).

Examples:
    python scripts/tune_deepobs.py mnist_mlp --optimizer Adam --grid lr=1e-4,1e-3,1e-2 --seeds 42 43
    python scripts/tune_deepobs.py mnist_mlp --search random --range lr=1e-4:1 --trials 20
    python scripts/tune_deepobs.py mnist_mlp --search bayesian --sampler gp --range lr=1e-4:1
    python scripts/tune_deepobs.py mnist_mlp --launcher slurm --slurm-partition gpu
    python scripts/tune_deepobs.py mnist_mlp --commands jobs

--pack 12 trains twelve settings side by side, each with its ordinary result.
Without --grid, the 36 learning rates of the published baselines are tried. --commands writes one
command per run, for a cluster that none of the launchers knows.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from deepobs.pytorch.flags import add_optimizer_flag, add_problem_flags, add_search_flags
from trainrig.cli import Parser, add_print_config_flag, entry, given_flags
from trainrig.config import parse_assignments
from trainrig.launch.options import add_launch_flags, launch_options
from trainrig.terminal import print_config

#: Flags that are arguments of the runner under the same name; None leaves its default.
PASSED_ON = ("batch_size", "num_epochs", "weight_decay", "data_dir", "train_log_interval")


def make_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = Parser(description=__doc__)
    parser.add_argument("testproblem", help="e.g. mnist_mlp")
    add_optimizer_flag(parser.add_argument_group("optimizer"))
    add_search_flags(parser.add_argument_group("search"))
    run = parser.add_argument_group("every run")
    add_problem_flags(run)
    text = "steps between two logged minibatch losses (10)"
    run.add_argument("--train_log_interval", type=int, help=text)
    process = parser.add_argument_group("this process")
    text = "root of the results (results)"
    process.add_argument("--output_dir", type=Path, default=Path("results"), help=text)
    text = "train finished runs again (their results are used)"
    process.add_argument("--again", action="store_true", help=text)
    text = "settings trained as one program (1)"
    process.add_argument("--pack", type=int, default=1, help=text)
    text = "write one command per run there, for a cluster, and run nothing"
    process.add_argument("--commands", type=Path, metavar="FOLDER", help=text)
    process.add_argument("--threads", type=int, default=1, help="CPU threads of one operation (1)")
    add_print_config_flag(process)
    add_launch_flags(parser)
    return parser


@entry
def main(argv: list[str] | None = None) -> int:
    """Tune, or write the commands."""
    parser = make_parser()
    args = parser.parse_args(argv)
    from deepobs.pytorch.config import get_default_device
    from deepobs.pytorch.tuner.assembly import Space, make_tuner, trace_search
    from trainrig.device import choose_device, set_threads

    set_threads(args.threads)
    launch = launch_options(args).resolved(choose_device(get_default_device()), args.threads)
    fixed = parse_assignments(args.hp, flag="--hp")
    space = Space(grid=args.grid or [], ranges=args.range or [], linear=args.linear, fixed=fixed)
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
    where = {"output_dir": args.output_dir, "random_seed": args.random_seed}
    if args.print_config:
        return print_config(*trace_search(tuner, args, run, given_flags(parser, args)))
    if args.commands:
        run |= {"generation_dir": args.commands, "again": args.again, "no_checkpoint": True} | where
        path = tuner.generate_commands_script(args.testproblem, "scripts/run_deepobs.py", **run)
        print(f"wrote {path}")
        return 0
    run |= {"skip_if_exists": not args.again}
    if launch.dry_run:
        tuner.plan(args.testproblem, launch, **where, **run)
        return 0
    run |= {"launch": launch, "rerun_best_setting": args.rerun_best} | where
    best = tuner.tune(args.testproblem, **run)
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
