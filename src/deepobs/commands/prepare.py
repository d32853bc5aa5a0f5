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


def make_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = Parser(description=__doc__)
    text = "where the sets are put (data_deepobs)"
    flags = ("-d", "--data_dir")
    parser.add_argument(*flags, dest="data_dir", type=Path, default="data_deepobs", help=text)
    parser.add_argument("--source", type=Path, help="folder with archives that are already here")
    some = {"action": "extend", "nargs": "+", "choices": SETS}
    parser.add_argument("-o", "--only", dest="only", help="sets to prepare (all)", **some)
    parser.add_argument("-s", "--skip", dest="skip", help="sets to leave out (none)", **some)
    return parser


@entry
def main(argv: list[str] | None = None) -> int:
    """Prepare each set; one that cannot be fetched does not stop the others."""
    parser = make_parser()
    args = parser.parse_args(argv)
    names = [name for name in args.only or SETS if name not in (args.skip or ())]
    if not names:
        parser.error("--skip leaves no data set to prepare")
    source = ["--source", str(args.source)] if args.source else []
    return trainrig(["data", "get", *names, "--data-dir", str(args.data_dir), *source])
