"""Memory of a training on a set that stays on disk, above that of the same run on 100 frames.

Writes the set (repeated simulated frames) into a temporary folder, trains one epoch on groups drawn
from the whole of it, and prints the peak of the process's anonymous memory for both runs. Linux.

Example:
    python benchmarks/measure_ptycho_memory.py --gib 2 --config configs/ptycho/train.yaml
"""

from __future__ import annotations

import argparse
from pathlib import Path

from trainrig.cli import Parser, entry, positive_int


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(description=__doc__)
    parser.add_argument("--gib", type=float, default=2.0, help="size of the frames in GiB (2)")
    parser.add_argument("--groups", type=positive_int, default=1000, help="to train on (1000)")
    parser.add_argument("--config", type=Path, help="YAML file of the training")
    return parser.parse_args(argv)


@entry
def main(argv: list[str] | None = None) -> int:
    """Measure and print."""
    args = parse_args(argv)
    from mapped_memory import compare

    if not args.gib > 0:
        raise ValueError(f"--gib {args.gib}: give a positive number")
    flags = ["--accelerator", "cpu"]
    flags += [] if args.config is None else ["--config", str(args.config)]
    for line in compare(
        Path(__file__).resolve().parent.parent / "scripts" / "train_ptycho.py",
        args.gib,
        args.groups,
        flags,
    ):
        print(line, flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
