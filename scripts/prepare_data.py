"""Put the data sets of the DeepOBS problems below one folder, from archives here or by download.

The same as ``trainrig data get`` for each of the sets that those problems read.

Example:
    python scripts/prepare_data.py --data_dir data_deepobs --source downloads --only tolstoi
"""

from __future__ import annotations

import argparse
from pathlib import Path

from trainrig.cli import Parser, entry
from trainrig.command import main as trainrig

SETS = ("mnist", "fmnist", "cifar10", "cifar100", "svhn", "tolstoi")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(description=__doc__)
    parser.add_argument("-d", "--data_dir", dest="data_dir", type=Path, default="data_deepobs")
    parser.add_argument("--source", type=Path, help="folder with archives that are already here")
    parser.add_argument("-o", "--only", dest="only", action="extend", nargs="+", choices=SETS)
    parser.add_argument("-s", "--skip", dest="skip", action="extend", nargs="+", choices=SETS)
    args = parser.parse_args(argv)
    if not set(args.only or SETS) - set(args.skip or ()):
        parser.error("--skip leaves no data set to prepare")
    return args


@entry
def main(argv: list[str] | None = None) -> int:
    """Prepare each set; one that cannot be had does not stop the others."""
    args = parse_args(argv)
    names = [name for name in args.only or SETS if name not in (args.skip or ())]
    source = ["--source", str(args.source)] if args.source else []
    return trainrig(["data", "get", *names, "--data-dir", str(args.data_dir), *source])


if __name__ == "__main__":
    raise SystemExit(main())
