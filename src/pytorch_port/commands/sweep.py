"""Run the weight-decay sweep of Figure 3, evaluate it and draw it.

Examples:
    python analysis/run_adamw_sweep_torch.py --preset quick
    python analysis/run_adamw_sweep_torch.py --device cuda --seeds 0 1 2
    python analysis/run_adamw_sweep_torch.py --preset quick --class_counts 100 --weight_decays 0 1

Presets: quick (minutes on a CPU, 28-px images, glyphs where Omniglot is absent), paper (100 and
1600 classes, λ 0 .. 1e-2, 50,000 steps, 105-px Omniglot), extended (λ up to 1 as well). The same
command again continues what is unfinished and skips what is complete.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pytorch_port.sweep.flags import (
    PACK_DEFAULT,
    add_data_flags,
    add_runtime_flags,
    resolve,
    runtime_options,
)
from pytorch_port.sweep.grid import PRESETS, Grid, found_in, plan_runs
from trainrig.cli import Parser, add_pack_flags, entry
from trainrig.launch.options import add_launch_flags, launch_options
from trainrig.terminal import print_config


def make_parser() -> argparse.ArgumentParser:
    """Return the command line; a flag left out keeps the preset's or the file's value."""
    parser = Parser(description=__doc__)
    parser.add_argument("--preset", choices=tuple(PRESETS), default="paper", help="(paper)")
    text = "configuration file (the preset's)"
    parser.add_argument("--config_path", "--config", dest="config_path", type=Path, help=text)
    output = ("--base_output_dir", "--output_dir")
    text = "output (runs/torch_adamw_sweep/<preset>)"
    parser.add_argument(*output, dest="base_output_dir", type=Path, help=text)
    grid = parser.add_argument_group("grid")
    grid.add_argument("--class_counts", type=int, nargs="+", help="classes in all (100 1600)")
    grid.add_argument(
        "--weight_decays", type=float, nargs="+", help="λ (paper: 0 3e-4 1e-3 3e-3 1e-2)"
    )
    grid.add_argument("--seeds", type=int, nargs="+", help="(the configuration's one)")
    grid.add_argument(
        "--l2_modes",
        nargs="+",
        choices=("decoupled", "sum_squares", "sum_norms"),
        help="what λ does (decoupled)",
    )
    run = parser.add_argument_group("every run")
    steps = ("--training_steps", "--steps")
    run.add_argument(*steps, dest="training_steps", type=int, help="optimizer steps (50000)")
    run.add_argument(
        "--n_common_classes", dest="data.generator_config.n_common_classes", type=int, help="(10)"
    )
    run.add_argument(
        "--n_holdout_classes", dest="data.generator_config.n_holdout_classes", type=int, help="(10)"
    )
    run.add_argument(
        "--max_eval_batches", type=int, help="batches of the final evaluation (configuration's)"
    )
    run.add_argument(
        "--skip_completed", action="store_true", help="skip finished runs (always done)"
    )
    add_data_flags(parser)
    add_runtime_flags(parser)
    add_pack_flags(parser, PACK_DEFAULT)
    add_launch_flags(parser)
    return parser


@entry
def main(argv: list[str] | None = None) -> int:
    """Train, evaluate and plot the grid; exit status 1 if a run has not ended."""
    parser = make_parser()
    arguments = parser.parse_args(argv)
    if arguments.max_eval_batches is not None and arguments.max_eval_batches < 1:
        parser.error(f"--max_eval_batches is {arguments.max_eval_batches}; at least 1 is expected")
    preset = PRESETS[arguments.preset]
    config_path = arguments.config_path or preset["config_path"]
    output = arguments.base_output_dir or Path("runs/torch_adamw_sweep") / arguments.preset
    traced = resolve(parser, arguments, config_path, preset["overrides"])
    base = traced.config
    grid = Grid(
        class_counts=tuple(arguments.class_counts or preset["class_counts"]),
        weight_decays=tuple(arguments.weight_decays or preset["weight_decays"]),
        seeds=tuple(arguments.seeds or [base.seed]),
        l2_modes=tuple(arguments.l2_modes or [base.optimizer.l2_mode]),
    )
    runs = found_in(output, plan_runs(base, grid, unnamed=traced.base))
    if arguments.print_config:
        return print_config(traced.rows(), grid.describe(len(runs)))
    from pytorch_port.config.runtime import Runtime
    from pytorch_port.figures.figure3_files import draw_runs
    from pytorch_port.sweep.carry_out import train_grid
    from trainrig.report.write import conclude

    runtime = Runtime(**runtime_options(arguments), project=f"sweep_{arguments.preset}")
    options = launch_options(arguments)
    outcomes = train_grid(
        runs, output, runtime, config_path=config_path, launch=options, pack=arguments.pack
    )
    if options.dry_run:
        return 0
    files = draw_runs(
        output / "runs.csv",
        output,
        max_eval_batches=arguments.max_eval_batches,
        device=runtime.device,
        data_dir=runtime.data_dir,
    )
    return conclude(output, files, outcomes)
