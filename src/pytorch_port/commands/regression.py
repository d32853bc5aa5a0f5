"""Quick regression: short runs at 100 and 1600 classes, held against archived bounds.

Example:
    python analysis/pytorch_regression.py --quiet

Trains on procedural glyphs (no data set needed), reads the metrics back from each progress.txt and
compares them with the bounds archived beside runs/torch_regression. Exit status 0 only if all hold.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from trainrig.cli import Parser, add_print_config_flag, entry
from trainrig.terminal import print_config

ARCHIVE = Path("runs/torch_regression/archive/bounds.csv")


def make_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = Parser(description=__doc__)
    parser.add_argument("--bounds", type=Path, default=ARCHIVE, help=f"bounds, CSV ({ARCHIVE})")
    parser.add_argument(
        "--config",
        type=Path,
        default=Path("configs/icl/quick.py"),
        help="file with get_config() (configs/icl/quick.py)",
    )
    parser.add_argument(
        "--output-dir",
        type=Path,
        default=Path("runs/torch_regression/quick"),
        help="output (runs/torch_regression/quick)",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (auto)")
    parser.add_argument("--jobs", type=int, help="runs side by side (CPU: one per core; CUDA: 1)")
    parser.add_argument("--quiet", action="store_true", help="print failures and the verdict only")
    add_print_config_flag(parser)
    return parser


@entry
def main(argv: list[str] | None = None) -> int:
    """Train afresh, compare, and return 0 if every bound holds."""
    arguments = make_parser().parse_args(argv)
    from pytorch_port.parity.regression import check_progress, read_bounds
    from pytorch_port.sweep.flags import trace_file
    from pytorch_port.sweep.grid import Grid, plan_runs
    from trainrig.config import apply_overrides

    bounds = read_bounds(arguments.bounds)
    overrides = {"data.source": "synthetic", "training_steps": max(row["step"] for row in bounds)}
    traced = trace_file(arguments.config)
    names = {"data.source": "the regression", "training_steps": "the bounds"}
    traced = traced.then(apply_overrides(traced.config, overrides), names)
    base = traced.config
    counts = tuple(sorted({row["class_count"] for row in bounds}))
    grid = Grid(class_counts=counts, weight_decays=(0.0,), seeds=(base.seed,))
    runs = plan_runs(base, grid)
    if arguments.print_config:
        return print_config(traced.rows(), grid.describe(len(runs)))
    from pytorch_port.config.runtime import Runtime
    from pytorch_port.sweep.carry_out import train_grid
    from trainrig.launch.options import LaunchOptions

    runtime = Runtime(
        device=arguments.device,
        overwrite=True,
        tracker="none",
        show_progress=not arguments.quiet,
    )
    train_grid(
        runs,
        arguments.output_dir,
        runtime,
        config_path=arguments.config,
        launch=LaunchOptions(jobs=arguments.jobs),
    )
    checks = [
        check
        for run in runs
        for check in check_progress(
            arguments.output_dir / run.name / "logs/progress.txt", run.class_count, bounds
        )
    ]
    failed = [check for check in checks if not check.ok]
    for check in failed if arguments.quiet else checks:
        print(check)
    print(f"{len(checks) - len(failed)} passed, {len(failed)} failed")
    return 1 if failed or not checks else 0
