"""Lay out the DeepOBS data sets below one folder, from local archives or by download.

Looks for archives and folders in --source first (e.g. the originals' .gz, .bin, .tar.gz, .mat, the
text of War and Peace); with --download, fetches what is missing, checking SHA-256.

Example:
    python scripts/prepare_data.py --data_dir data_deepobs --source downloads --only tolstoi
"""

from __future__ import annotations

import argparse
from pathlib import Path

from trainrig.cli import Parser, entry

SETS = ("mnist", "fmnist", "cifar10", "cifar100", "svhn", "tolstoi")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(description=__doc__)
    parser.add_argument("-d", "--data_dir", dest="data_dir", type=Path, default="data_deepobs")
    parser.add_argument("--source", type=Path, help="folder with archives that are already here")
    parser.add_argument("-o", "--only", dest="only", action="extend", nargs="+", choices=SETS)
    parser.add_argument("-s", "--skip", dest="skip", action="extend", nargs="+", choices=SETS)
    parser.add_argument("--download", action="store_true", help="fetch what --source does not have")
    return parser.parse_args(argv)


@entry
def main(argv: list[str] | None = None) -> int:
    """Prepare each set; one that cannot be had does not stop the others."""
    args = parse_args(argv)
    from deepobs.pytorch.datasets.prepare import prepare

    failed = []
    for name in args.only or SETS:
        if name in (args.skip or ()):
            continue
        try:
            done = prepare(name, Path(args.data_dir), args.source, download=args.download)
            print(f"{name}: {done}", flush=True)
        except (OSError, ValueError) as error:
            failed.append(name)
            print(f"{name}: failed: {error}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
