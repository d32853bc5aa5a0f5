"""Check this port against recorded arrays of the reference systems and print every comparison.

Cases, settings and bounds are read from the directory, so any directory in the recorded format
will do. Exit status 0 only if something was checked and nothing failed.

Example:
    python scripts/verify_parity.py icl --golden tests/parity/golden/icl
"""

from __future__ import annotations

import argparse
from pathlib import Path

from trainrig.cli import Parser, entry


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(description=__doc__)
    systems = parser.add_subparsers(dest="system", required=True, metavar="SYSTEM")
    icl = systems.add_parser(
        "icl",
        description="In-context learning: models, loss, metrics, schedule, sequence generator.",
        help="in-context learning transformer and its sequence generator",
    )
    icl.add_argument(
        "--golden", type=Path, required=True, metavar="DIR", help="directory of recorded arrays"
    )
    icl.add_argument("--device", default="cpu", help="cpu (default), cuda or cuda:N")
    ptycho = systems.add_parser(
        "ptycho",
        description="Ptychography: physics, grouping, merge, network, metrics, configuration.",
        help="ptychography's forward model, data path, network and configuration bridge",
    )
    ptycho.add_argument(
        "--golden", type=Path, required=True, metavar="DIR", help="directory of recorded arrays"
    )
    return parser.parse_args(argv)


@entry
def main(argv: list[str] | None = None) -> int:
    """Run all checks of one system and print the table."""
    args = parse_args(argv)  # torch is imported after this line, so that --help is instant
    if args.system == "ptycho":
        from ptycho_torch import parity as ptycho_parity

        report = ptycho_parity.run(args.golden)
    else:
        from pytorch_port.parity import run

        report = run(args.golden, args.device)
    print(report.table())
    return report.exit_code


if __name__ == "__main__":
    raise SystemExit(main())
