"""Train one in-context-learning run and evaluate both regimes at every checkpoint.

Example:
    python analysis/pytorch_train.py --config configs/icl/symbolic.py --max-steps 500

The same command again continues an unfinished run. Figures in brackets are the defaults of
configs/icl/images_all_exemplars.py; a configuration file may say otherwise.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pytorch_port.sweep.flags import (
    add_run_flags,
    add_runtime_flags,
    resolve,
    runtime_options,
)
from trainrig.cli import Parser, entry
from trainrig.profiling import add_profile_flag, profiled
from trainrig.terminal import print_config

DEFAULT_CONFIG = Path("configs/icl/images_all_exemplars.py")


def make_parser() -> argparse.ArgumentParser:
    """Return the command line; a flag left out keeps the file's value."""
    parser = Parser(description=__doc__)
    parser.add_argument(
        "--config", type=Path, default=DEFAULT_CONFIG, help="file with get_config()"
    )
    parser.add_argument(
        "--output-dir", type=Path, help="run directory (runs/icl_train/<configuration's name>)"
    )
    parser.add_argument(
        "--resume", action="store_true", help="insist on continuing a run; there must be one"
    )
    add_run_flags(parser)
    add_runtime_flags(parser)
    add_profile_flag(parser)
    return parser


@entry(team=True)
def main(argv: list[str] | None = None) -> int:
    """Run one training and print where it was written."""
    parser = make_parser()
    arguments = parser.parse_args(argv)
    traced = resolve(parser, arguments, arguments.config)
    if arguments.print_config:
        return print_config(traced.rows())
    path = arguments.output_dir or Path("runs/icl_train") / arguments.config.stem
    if arguments.resume and not (path / "config.json").exists():
        raise FileNotFoundError(f"{path}: holds no run to resume; leave --resume out to start one")
    from pytorch_port.config.runtime import Runtime
    from pytorch_port.train.experiment import run

    with profiled(arguments.profile):
        result = run(traced.config, Runtime(**runtime_options(arguments)), path=path)
    if result.path is None:  # under torchrun: process 0 speaks
        return 0
    if result.status == "diverged":
        raise ValueError(f"{path}: diverged at step {result.step}: {result.message}")
    from pytorch_port.figures.headlines import headline_lines

    for line in headline_lines(path):
        print(line)
    print(f"{path}: {result.status} at step {result.step}")
    return 0
