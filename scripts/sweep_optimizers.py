r"""Compare optimizers over learning rates and seeds; the rate is chosen on validation only.

Example:
    python scripts/sweep_optimizers.py --optimizers sgd=0.1,0.03 adamw=1e-3,3e-3 muon=1e-3 \
        --seeds 0 1 2 --name first

Runs go to runs/optimizer_quality/sweeps/{name}/{optimizer}_lr{lr}_seed{S}. The same command again
continues what is unfinished and skips what is complete.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from trainrig.cli import Parser, entry, positive_int
from trainrig.launch.options import add_launch_flags, launch_options

BASE_CONFIG = Path("configs/optimizer_quality/base_config.yaml")
SWEEPS = Path("runs/optimizer_quality/sweeps")


def make_parser() -> argparse.ArgumentParser:
    """Return the command line; a flag left out keeps the file's value."""
    parser = Parser(description=__doc__)
    parser.add_argument("--config", type=Path, default=BASE_CONFIG, help=f"({BASE_CONFIG})")
    parser.add_argument("--name", default="default", help="the sweep's folder (default)")
    parser.add_argument("--output-dir", type=Path, default=SWEEPS, help=f"({SWEEPS})")
    parser.add_argument("--optimizers", nargs="+", metavar="NAME[=LR,LR]", required=True)
    parser.add_argument("--lrs", type=float, nargs="+", default=[], help="where NAME has none")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="(0 1 2)")
    parser.add_argument("--dataset", help="cifar10, cifar100, fashion_mnist, mnist or synthetic")
    parser.add_argument("--data-dir", help="folder of data sets (./data)")
    parser.add_argument("--num-epochs", type=int, help="(200)")
    parser.add_argument("--device", help="cuda, cuda:N, cpu or auto (cuda, else cpu)")
    parser.add_argument("--set", action="append", metavar="KEY=VALUE", help="any other key, dotted")
    parser.add_argument("--pack", type=int, default=1, help="runs trained as one program (1)")
    parser.add_argument("--threads", type=positive_int, help="torch threads of each run (1)")
    parser.add_argument("--overwrite", action="store_true", help="start existing runs anew")
    parser.add_argument("--no-track", action="store_true", help="leave trackio out")
    add_launch_flags(parser)
    return parser


@entry
def main(argv: list[str] | None = None) -> int:
    """Train the grid and print the table; exit status 1 if a run failed."""
    arguments = make_parser().parse_args(argv)
    from optimizer_quality.config import CifarConfig
    from optimizer_quality.experiment import resolve_device, write_runs_csv
    from optimizer_quality.session import Runtime
    from optimizer_quality.sweep import execute, parse_grid, plan_runs, write_summary
    from trainrig.config import apply_overrides, load_config, parse_assignments
    from trainrig.runs import FINAL

    keys = ("dataset", "data_dir", "num_epochs", "device")
    overrides = {key: getattr(arguments, key) for key in keys}
    base = apply_overrides(
        load_config(arguments.config, CifarConfig), overrides | parse_assignments(arguments.set)
    )
    runs = plan_runs(base, parse_grid(arguments.optimizers, arguments.lrs), arguments.seeds)
    folder = arguments.output_dir / arguments.name
    options = launch_options(arguments).resolved(resolve_device(base.device), arguments.threads)
    runtime = Runtime(
        threads=arguments.threads,
        overwrite=arguments.overwrite,
        track=not arguments.no_track,
        quiet=True,
    )
    failed = 0
    for outcome in execute(runs, folder, runtime, options, arguments.pack):
        print(f"{outcome.name}: {outcome.status} {outcome.message}".rstrip(), flush=True)
        failed += outcome.status not in FINAL
        write_summary(runs, folder)
    if options.dry_run:
        return 0
    write_runs_csv(folder)
    print(write_summary(runs, folder), end="")
    from trainrig.report.write import write_report

    print(f"{folder / 'summary.csv'}\n{write_report(folder)}")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
