"""Run the published in-context-learning experiments and draw ours over the published values.

Examples:
    python analysis/reproduce_published.py --preset quick --figures 2
    python analysis/reproduce_published.py --figures 2 3 --max-steps 100000 --seeds 0 1 2
    python analysis/reproduce_published.py --preset quick --list

Figures of Chan et al. 2022: 2 (share of bursty sequences), 3 (100, 1600, 12800 classes), 6 (Zipf
exponent), 7 (transformer, LSTM, vanilla RNN). Presets: paper (12 layers, 105-px Omniglot, 500,000
steps: for a GPU) and quick (2 layers, 28 px, 3,500 steps: the shape of the effects on a CPU in
minutes per figure, not to be compared with the published numbers). The same command again continues
what is unfinished; --slice I/N trains a part of the runs, and any process draws what is there.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pytorch_port.figures.reproduction import FIGURES, PRESETS, make_plan, runs_of, take_slice
from pytorch_port.sweep.flags import (
    PACK_DEFAULT,
    add_data_flags,
    add_engine_flags,
    add_runtime_flags,
    resolve,
    runtime_options,
)
from trainrig.cli import Parser, add_pack_flags, entry
from trainrig.terminal import print_config


def make_parser() -> argparse.ArgumentParser:
    """Return the command line; a flag left out keeps the preset's or the file's value."""
    parser = Parser(description=__doc__)
    parser.add_argument("--preset", choices=tuple(PRESETS), default="paper", help="(paper)")
    parser.add_argument("--figures", nargs="+", default=list(FIGURES), help="2 3 6 7 (all)")
    parser.add_argument("--seeds", type=int, nargs="+", help="(the configuration's one)")
    steps = ("--max-steps", "--steps")
    parser.add_argument(*steps, dest="training_steps", type=int, help="steps of every run")
    parser.add_argument("--slice", metavar="I/N", help="train every N-th run from the I-th (all)")
    parser.add_argument("--list", action="store_true", help="print the plan, train nothing")
    parser.add_argument("--draw-only", action="store_true", help="draw what is there")
    parser.add_argument("--output-dir", type=Path, help="(runs/published/<preset>)")
    parser.add_argument("--jobs", type=int, help="runs side by side (CPU: one per core; CUDA: 1)")
    add_engine_flags(parser)
    add_pack_flags(parser, PACK_DEFAULT)
    add_data_flags(parser)
    add_runtime_flags(parser)
    return parser


@entry
def main(argv: list[str] | None = None) -> int:
    """Train, tabulate and draw; exit status 1 if a run has not ended."""
    parser = make_parser()
    arguments = parser.parse_args(argv)
    preset = PRESETS[arguments.preset]
    output = arguments.output_dir or Path("runs/published") / arguments.preset
    traced = resolve(parser, arguments, preset["config_path"], preset["overrides"])
    base = traced.config
    plan = make_plan(base, arguments.figures, arguments.seeds or [base.seed])
    chosen = take_slice(runs_of(plan), arguments.slice)
    if arguments.print_config:
        return print_config(traced.rows(), f"{len(chosen)} runs vary it: --list names them")
    if arguments.list:
        for planned in plan:
            condition = planned.condition
            print(f"Fig. {condition.figure}  {condition.label:<16}{planned.run.name}")
        total, steps = len(runs_of(plan)), base.training_steps
        print(f"{total} runs of {steps} steps; {len(chosen)} in this slice")
        return 0
    from pytorch_port.config.runtime import Runtime
    from pytorch_port.figures.reproduction_files import write_reproduction
    from pytorch_port.sweep.carry_out import train_grid
    from trainrig.launch.options import LaunchOptions
    from trainrig.report.write import conclude

    runtime = Runtime(**runtime_options(arguments), project=f"published_{arguments.preset}")
    outcomes = []
    if not arguments.draw_only:
        config_path = preset["config_path"]
        outcomes = train_grid(
            chosen,
            output,
            runtime,
            config_path=config_path,
            launch=LaunchOptions(jobs=arguments.jobs),
            pack=arguments.pack,
        )
    return conclude(output, write_reproduction(base, plan, output, runtime), outcomes)
