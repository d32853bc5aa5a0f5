"""Train the ptychography network on a scan, without labels, and write a reconstruction.

Precedence: flag, then the YAML file, then the default. A killed run continues by the same command;
a finished one is left as it is, unless more epochs are asked for. --overwrite starts over.
Left in the output folder: wts.h5.zip, checkpoints/, logs/metrics.csv, config.yaml,
reconstruction.npz, reconstructed_amplitude.png, reconstructed_phase.png, previews/.

Example:
    python scripts/train_ptycho.py --train_data_file scan.npz --output_dir runs/ptycho/first
"""

from __future__ import annotations

import argparse
from functools import partial

from trainrig.cli import Parser, entry, given_flags
from trainrig.profiling import add_profile_flag, profiled
from trainrig.terminal import print_config


def make_parser() -> argparse.ArgumentParser:
    """Return the command line; a flag left out keeps the file's value."""
    from ptycho_torch.study.cli import add_training_flags

    parser = Parser(description=__doc__)
    add_training_flags(parser)
    add_profile_flag(parser)
    return parser


@entry(team=True)
def main(argv: list[str] | None = None) -> int:
    """Train, reconstruct, save."""
    parser = make_parser()
    args = parser.parse_args(argv)  # torch is imported later, so that --help is instant
    from ptycho_torch.study.cli import trace_training, train_from_args

    if args.print_config:
        return print_config(trace_training(args, given_flags(parser, args)).rows())
    with profiled(args.profile):
        train_from_args(args, partial(print, flush=True))
    return 0
