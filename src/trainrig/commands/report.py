"""Write one self-contained HTML page about whatever scripts of this project left behind.

A run, a sweep, a comparison, a DeepOBS results folder or a reconstruction: headline figures,
interactive curves, a table that sorts, what differs between the runs, what made them, and published
values beside ours. The page needs no network.

Examples:
    python scripts/make_report.py runs/torch_adamw_sweep/quick
    python scripts/make_report.py results --output deepobs.html
"""

from __future__ import annotations

import argparse
from pathlib import Path

from trainrig.cli import Parser, entry


def make_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = Parser(description=__doc__)
    parser.add_argument("paths", type=Path, nargs="+", help="folders, or a file in each")
    parser.add_argument("--output", type=Path, help="HTML file (report.html in the folder)")
    return parser


@entry
def main(argv: list[str] | None = None) -> int:
    """Write the reports and print where they are."""
    parser = make_parser()
    arguments = parser.parse_args(argv)
    if arguments.output is not None and len(arguments.paths) > 1:
        parser.error("--output: one page for several folders; give their common folder instead")
    from trainrig.report.write import write_report

    for path in arguments.paths:
        print(write_report(path, arguments.output))
    return 0
