"""Sweep the number of classes (Figure 3a/3b): accuracy against step, one line per class count.

Examples:
    python analysis/run_figure3a_torch.py --preset quick --plot
    python analysis/run_figure3a_torch.py --class-counts 100 1600 --device cuda --plot

Presets: paper (100 to 1600 classes, Adam, 50,000 steps, 105-px Omniglot), quick (a small model on
28-px images, glyphs where Omniglot is absent). Panel a is the in-context regime, panel b the
in-weights one; both come from the same runs. The same command again continues what is unfinished.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pytorch_port.sweep.flags import (
    PACK_DEFAULT,
    SYMBOLIC_NOTE,
    add_data_flags,
    add_runtime_flags,
    resolve,
    runtime_options,
)
from pytorch_port.sweep.grid import FIGURE3A_PRESETS, Grid, found_in, plan_runs
from trainrig.cli import Parser, add_pack_flags, entry
from trainrig.launch.options import add_launch_flags, launch_options
from trainrig.terminal import print_config


def make_parser() -> argparse.ArgumentParser:
    """Return the command line; a flag left out keeps the preset's or the file's value."""
    parser = Parser(description=__doc__)
    parser.add_argument(
        "--preset", choices=tuple(FIGURE3A_PRESETS), default="paper", help="(paper)"
    )
    text = "configuration file (the preset's)"
    parser.add_argument("--config-path", "--config", dest="config_path", type=Path, help=text)
    parser.add_argument("--output-dir", type=Path, help="output (runs/figure3a_torch/<preset>)")
    parser.add_argument("--panel", choices=("a", "b"), default="a", help="regime to tabulate (a)")
    parser.add_argument("--plot", action="store_true", help="draw the figure as well")
    grid = parser.add_argument_group("runs")
    grid.add_argument(
        "--class-counts", type=int, nargs="+", help="classes in all (100 200 400 800 1600)"
    )
    grid.add_argument("--seeds", type=int, nargs="+", help="(the configuration's one)")
    grid.add_argument(
        "--example-type",
        dest="data.example_type",
        choices=("omniglot", "symbolic"),
        help=SYMBOLIC_NOTE,
    )
    for flag, dest, kind, text in (
        ("--optimizer", "optimizer.name", str, "adam, adamw, ... (adam)"),
        ("--batch-size", "training.batch_size", int, "sequences per batch (32)"),
        ("--max-steps --steps", "training_steps", int, "optimizer steps (50000)"),
        ("--eval-interval", "training.eval_interval", int, "steps between evaluations (1000)"),
        ("--eval-batches", "evaluation.batches", int, "batches per evaluation (64)"),
    ):
        grid.add_argument(*flag.split(), dest=dest, type=kind, help=text)
    add_pack_flags(parser, PACK_DEFAULT)
    add_data_flags(parser)
    add_runtime_flags(parser)
    add_launch_flags(parser)
    return parser


@entry
def main(argv: list[str] | None = None) -> int:
    """Train the class counts, write the tables, and draw them if asked."""
    parser = make_parser()
    arguments = parser.parse_args(argv)
    preset = FIGURE3A_PRESETS[arguments.preset]
    config_path = arguments.config_path or preset["config_path"]
    output = arguments.output_dir or Path("runs/figure3a_torch") / arguments.preset
    traced = resolve(parser, arguments, config_path, preset["overrides"])
    base = traced.config
    grid = Grid(
        class_counts=tuple(arguments.class_counts or preset["class_counts"]),
        weight_decays=(base.optimizer.weight_decay,),
        seeds=tuple(arguments.seeds or [base.seed]),
    )
    runs = found_in(output, plan_runs(base, grid, unnamed=traced.base))
    if arguments.print_config:
        return print_config(traced.rows(), grid.describe(len(runs)))
    from pytorch_port.config.runtime import Runtime
    from pytorch_port.figures.figure3a import draw_folder
    from pytorch_port.sweep.carry_out import train_grid
    from trainrig.report.write import conclude

    runtime = Runtime(**runtime_options(arguments), project="figure3a")
    options = launch_options(arguments)
    outcomes = train_grid(
        runs,
        output,
        runtime,
        config_path=config_path,
        launch=options,
        pack=arguments.pack,
        varied=(),
    )
    if options.dry_run:
        return 0
    files = draw_folder(output, arguments.panel, plot=arguments.plot)
    figures = [files.figure] if arguments.plot else []
    return conclude(output, (files.metrics, files.timeseries, *figures), outcomes)
