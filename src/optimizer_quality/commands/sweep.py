r"""Compare optimizers over learning rates and seeds; the rate is chosen on validation only.

Example:
    python scripts/sweep_optimizers.py --optimizers sgd=0.1,0.03 adamw=1e-3,3e-3 muon=1e-3 \
        --seeds 0 1 2 --name first

Runs go to runs/optimizer_quality/sweeps/{name}/{optimizer}_lr{lr}_seed{S}; what else differs from
the configuration file stands before the seed. The same command again continues what is unfinished
and skips what is complete; another one adds its runs, and the tables list all of them. A larger
num_epochs in the file makes complete runs longer; given by flag, it stands in the runs' names.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from trainrig.cli import (
    Parser,
    add_force_engine_flag,
    add_pack_flags,
    add_print_config_flag,
    entry,
    given_flags,
    positive_int,
)
from trainrig.data import catalogue
from trainrig.launch.options import add_launch_flags, launch_options
from trainrig.terminal import print_config
from trainrig.tracking.tracker import add_tracker_flags

BASE_CONFIG = Path("configs/optimizer_quality/base_config.yaml")
SWEEPS = Path("runs/optimizer_quality/sweeps")


def make_parser() -> argparse.ArgumentParser:
    """Return the command line; a flag left out keeps the file's value."""
    parser = Parser(description=__doc__)
    parser.add_argument("--config", type=Path, default=BASE_CONFIG, help=f"({BASE_CONFIG})")
    parser.add_argument("--name", default="default", help="the sweep's folder (default)")
    parser.add_argument("--output-dir", type=Path, default=SWEEPS, help=f"({SWEEPS})")
    grid = parser.add_argument_group("grid")
    text = "optimizers, each with the learning rates to try"
    grid.add_argument("--optimizers", nargs="+", metavar="NAME[=LR,LR]", required=True, help=text)
    text = "learning rates of the optimizers named without any"
    grid.add_argument("--lrs", type=float, nargs="+", default=[], help=text)
    grid.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="(0 1 2)")
    run = parser.add_argument_group("every run (the base configuration's values in brackets)")
    run.add_argument("--dataset", help=", ".join(catalogue.image_sets()))
    run.add_argument("--data-dir", help="folder of data sets (./data)")
    text = "passes over the training part (200)"
    run.add_argument("--num-epochs", "--epochs", dest="num_epochs", type=int, help=text)
    run.add_argument("--device", help="cuda, cuda:N, cpu or auto (cuda, else cpu)")
    run.add_argument("--set", action="append", metavar="KEY=VALUE", help="any other key, dotted")
    process = parser.add_argument_group("this process")
    process.add_argument("--threads", type=positive_int, help="torch threads of each run (1)")
    process.add_argument(
        "--overwrite", action="store_true", help="train existing runs again from the start"
    )
    text = "let unfinished runs change over to packs of another size, with other rounding"
    add_force_engine_flag(process, text)
    add_tracker_flags(process)
    add_print_config_flag(process)
    add_pack_flags(parser, "1")
    add_launch_flags(parser)
    return parser


@entry
def main(argv: list[str] | None = None) -> int:
    """Train the grid and print the table; exit status 1 if a run failed."""
    parser = make_parser()
    arguments = parser.parse_args(argv)
    from optimizer_quality.config import resolve
    from optimizer_quality.experiment import Runtime, resolve_device
    from optimizer_quality.sweep import execute, found_in, parse_grid, plan_runs, write_summary
    from trainrig.report.write import conclude
    from trainrig.sweep import Paced, refuse_if_all_failed

    keys = ("dataset", "data_dir", "num_epochs", "device")
    flags = {key: getattr(arguments, key) for key in keys}
    traced = resolve(arguments.config, flags, given_flags(parser, arguments), arguments.set)
    base, grid = traced.config, parse_grid(arguments.optimizers, arguments.lrs)
    folder = arguments.output_dir / arguments.name
    runs = found_in(folder, plan_runs(base, grid, arguments.seeds, unnamed=traced.base))
    if arguments.print_config:
        names = " ".join(run.name for run in runs)
        return print_config(traced.rows(), f"optimizer, lr and seed vary over the runs {names}")
    options = launch_options(arguments).resolved(resolve_device(base.device), arguments.threads)
    runtime = Runtime(
        threads=arguments.threads,
        overwrite=arguments.overwrite,
        tracker=arguments.tracker,
        quiet=True,
        force_engine_change=arguments.force_engine_change,
    )

    outcomes, paced = [], Paced(lambda: write_summary(runs, folder, passing=True))
    for outcome in execute(runs, folder, runtime, options, arguments.pack or 1):
        print(f"{outcome.name}: {outcome.status} {outcome.message}".rstrip(), flush=True)
        outcomes.append(outcome)
        paced()
    if options.dry_run:
        return 0
    print(write_summary(runs, folder), end="")
    refuse_if_all_failed(outcomes)
    return conclude(folder, [folder / "summary.csv"], outcomes)
