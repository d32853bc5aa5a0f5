"""Measure what docs/deepobs.md claims: first losses, runner overhead, data pipelines.

Times are CPU seconds of this process on one thread, so that a busy machine does not blur them.

Examples:
    python benchmarks/measure_deepobs.py first-losses --data_dir DATA
    python benchmarks/measure_deepobs.py overhead --data_dir DATA
    python benchmarks/measure_deepobs.py pipelines --data_dir DATA
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from trainrig.cli import Parser, entry


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(description=__doc__)
    parser.add_argument("what", choices=("first-losses", "overhead", "pipelines"))
    parser.add_argument("names", nargs="*", help="test problems")
    parser.add_argument("--data_dir", type=Path, help="folder of data sets (as run_deepobs.py)")
    parser.add_argument("--batches", type=int, help="fewer batches")
    parser.add_argument("--seeds", type=int, default=3, help="first-losses: seeds (3)")
    parser.add_argument("--repeats", type=int, default=5, help="timings of each (5)")
    return parser.parse_args(argv)


@entry
def main(argv: list[str] | None = None) -> int:
    """Measure one thing and print it."""
    args = parse_args(argv)
    logging.basicConfig(format="%(message)s")
    logging.getLogger("deepobs_measurements").setLevel(logging.INFO)
    import torch

    from deepobs.pytorch import config
    from deepobs_measurements import FIRST_LOSSES, first_losses, overhead, pipelines

    torch.set_num_threads(1)
    if args.data_dir is not None:
        config.set_data_dir(args.data_dir)
    if args.what == "first-losses":
        lines = first_losses(args.names or FIRST_LOSSES, args.batches, args.seeds)
    elif args.what == "overhead":
        lines = overhead(
            args.names or ("mnist_mlp", "fmnist_2c2d"), args.batches or 60, args.repeats
        )
    else:
        lines = pipelines(args.repeats, args.batches or 40)
    for line in lines:
        print(line, flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
