"""Compare finished runs of different optimizers and seeds: sixteen measures and one page.

Example:
    python analysis/compare_solutions.py runs/optimizer_quality/results/*_seed*

Writes {measure}.csv, .png and .pdf and report.html below --output-dir. Give three seeds or more per
optimizer: a difference between optimizers means something only against that between seeds.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from trainrig.cli import Parser, entry

OUTPUT = Path("runs/optimizer_quality/comparison")


def make_parser() -> argparse.ArgumentParser:
    """Return the command line; settings left out keep their defaults."""
    parser = Parser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+", help="run directories")
    parser.add_argument("--output-dir", type=Path, default=OUTPUT, help=f"({OUTPUT})")
    parser.add_argument("--data-dir", help="folder of data sets (the runs' own)")
    parser.add_argument("--only", nargs="+", default=[], help="measures to take (all)")
    parser.add_argument("--threads", type=int, help="torch threads (1)")
    settings = parser.add_argument_group("settings")
    settings.add_argument("--n-probe", type=int, help="test images: CKA, lines (2000)")
    settings.add_argument("--n-hessian", type=int, help="training images: Hessian (500)")
    settings.add_argument("--n-statistics", type=int, help="training images: BatchNorm (1000)")
    settings.add_argument("--n-clean", type=int, help="training images: final loss (5000)")
    settings.add_argument("--n-shift", type=int, help="test images that are corrupted (1000)")
    settings.add_argument("--lanczos-steps", type=int, help="(12)")
    settings.add_argument("--trace-probes", type=int, help="(8)")
    settings.add_argument("--n-points", type=int, help="points of a line (7)")
    settings.add_argument("--lines-per-kind", type=int, help="lines per kind of pair, 0 = all (3)")
    settings.add_argument("--feature-steps", type=int, help="ascent steps (96)")
    return parser


@entry
def main(argv: list[str] | None = None) -> int:
    """Compare the runs and print where the page is."""
    given = vars(make_parser().parse_args(argv))
    from optimizer_quality.comparison import Settings
    from optimizer_quality.report import compare
    from trainrig.device import set_threads

    set_threads(given.pop("threads"))
    paths, output_dir = given.pop("runs"), given.pop("output_dir")
    data_dir, only = given.pop("data_dir"), given.pop("only")
    settings = Settings(**{key: value for key, value in given.items() if value is not None})
    page = compare(paths, output_dir, settings, data_dir=data_dir, only=only, say=print)
    print(page)
    return 0
