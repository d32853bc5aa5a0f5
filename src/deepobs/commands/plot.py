"""Tables and figures of a DeepOBS results folder, the published baselines under every plot.

Reads <results>/<problem>/<optimizer>/<setting>/*.json, of this package or of the original.
Broken and foreign files are named, skipped and counted. Equal seeds of a setting count once.

Example:
    python scripts/plot_deepobs.py results --output figures
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

from trainrig.cli import Parser, entry


def make_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = Parser(description=__doc__)
    parser.add_argument("path", type=Path, help="results folder")
    parser.add_argument("--output", type=Path, default=Path("figures"), help="folder (figures)")
    text = "settings compared by their last value, their best, or with most seeds (most)"
    parser.add_argument("--mode", choices=("final", "best", "most"), default="most", help=text)
    parser.add_argument("--metric", help="curve to judge by, e.g. test_losses")
    parser.add_argument("--get_best_run", action="store_true", help="print the best settings only")
    parser.add_argument("--plot_lr_sensitivity", action="store_true", help="final value against lr")
    parser.add_argument("--hyperparameter", default="lr", help="of the sensitivity plot (lr)")
    parser.add_argument(
        "--plot_sensitivity_2d", nargs=2, metavar=("X", "Y"), help="hyperparameters"
    )
    parser.add_argument("--plot_performance", action="store_true", help="curves by epoch")
    parser.add_argument("--plot_table", action="store_true", help="as CSV, Markdown, LaTeX")
    parser.add_argument("--plot_profiles", action="store_true", help="over all problems")
    parser.add_argument("--full", action="store_true", help="everything (the default)")
    return parser


def draw(results: Any, args: argparse.Namespace, everything: bool) -> list[Path]:
    """Write the figures that were asked for."""
    from deepobs.analyzer import plots
    from trainrig.plotting.style import save_figure

    wanted = {
        "performance": (
            args.plot_performance,
            lambda: plots.plot_performance(results, None, args.mode),
        ),
        f"{args.hyperparameter}_sensitivity": (
            args.plot_lr_sensitivity,
            lambda: plots.plot_sensitivity(results, None, args.hyperparameter),
        ),
        "profiles": (args.plot_profiles, lambda: plots.plot_profiles(results)),
    }
    figures = {name: plot for name, (asked, plot) in wanted.items() if asked or everything}
    for problem in results.testproblems if args.plot_sensitivity_2d else ():
        for optimizer in results.optimizers(problem):
            figures[f"sensitivity_2d_{problem}_{optimizer}"] = partial(
                plots.plot_sensitivity_2d,
                *(results, problem, optimizer, *args.plot_sensitivity_2d, args.metric),
            )
    return [
        path
        for name, plot in figures.items()
        for path in save_figure(plot(), args.output / f"{name}.png")
    ]


@entry
def main(argv: list[str] | None = None) -> int:
    """Write tables and figures."""
    args = make_parser().parse_args(argv)
    from deepobs.analyzer import tables
    from deepobs.analyzer.results import read_results
    from trainrig.files import write_atomically

    results = read_results(args.path)
    for skipped in results.skipped:
        print(f"skipped {skipped.reason}")
    for line in results.repeated:
        print(line)
    print(f"{sum(1 for _ in results)} results read, {len(results.skipped)} files skipped")
    if not results.testproblems:
        raise ValueError(f"{args.path}: no results; run scripts/run_deepobs.py first")
    rows = tables.make_rows(results, args.mode, args.metric)
    print(tables.to_markdown(rows), end="")
    if args.get_best_run:
        return 0
    asked = [args.plot_table, args.plot_performance, args.plot_lr_sensitivity, args.plot_profiles]
    everything = args.full or not (any(asked) or args.plot_sensitivity_2d)
    written = draw(results, args, everything)
    if args.plot_table or everything:
        for suffix, text in (
            ("csv", tables.to_csv(rows)),
            ("md", tables.to_markdown(rows)),
            ("tex", tables.to_latex(rows)),
        ):
            written.append(args.output / f"performance_table.{suffix}")
            write_atomically(written[-1], text)
    for path in written:
        print(f"wrote {path}")
    return 0
