"""Draw Figure 3: in-context and in-weights accuracy against weight decay.

Examples:
    python analysis/plot_figure3_adamw.py --runs_csv runs/torch_adamw_sweep/quick/runs.csv
    python analysis/plot_figure3_adamw.py --metrics_csv TABLE.csv --overlay published
    python analysis/plot_figure3_adamw.py --metrics_csv TORCH.csv --jax_metrics_csv JAX.csv

From runs.csv, checkpoints are evaluated, except where the metrics table of the output directory
already has the run at its number of steps. From metrics tables, nothing is evaluated. Writes
figure3_adamw.png and .pdf, figure3_adamw_metrics.csv and the curves against training step.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from trainrig.cli import Parser, entry


def make_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = Parser(description=__doc__)
    parser.add_argument("--runs_csv", type=Path, help="runs of a sweep, to be evaluated")
    parser.add_argument(
        "--metrics_csv", type=Path, nargs="+", default=[], help="metrics tables, drawn as they are"
    )
    parser.add_argument(
        "--jax_metrics_csv",
        type=Path,
        nargs="+",
        default=[],
        help="metrics tables of the JAX sweep; rows without a backend are its",
    )
    parser.add_argument(
        "--curves_csv",
        type=Path,
        nargs="+",
        help="accuracy against step, with --metrics_csv (figure3_adamw_curves.csv beside them)",
    )
    parser.add_argument("--output_dir", type=Path, help="(the folder of the first table)")
    parser.add_argument(
        "--overlay",
        nargs="*",
        metavar="WHAT",
        help="draw as well: 'published' (Chan et al. 2022, Fig. 3; meant by the bare flag), "
        "and tables or folders of archived runs",
    )
    evaluation = parser.add_argument_group("evaluation of checkpoints, with --runs_csv")
    evaluation.add_argument(
        "--recompute", action="store_true", help="evaluate runs whose metrics are cached as well"
    )
    evaluation.add_argument(
        "--max_eval_batches", type=int, help="batches per regime (the run's configuration)"
    )
    evaluation.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 (auto)")
    evaluation.add_argument("--data_dir", help="folder of data sets ($TRAINRIG_DATA_DIR or ./data)")
    return parser


@entry
def main(argv: list[str] | None = None) -> int:
    """Write tables and figures and print where they are."""
    parser = make_parser()
    arguments = parser.parse_args(argv)
    tables = [*arguments.metrics_csv, *arguments.jax_metrics_csv]
    first = arguments.runs_csv or next(iter(tables), None)
    if first is None:
        parser.error("nothing to draw; give --runs_csv, --metrics_csv or --jax_metrics_csv")
    if arguments.max_eval_batches is not None and arguments.max_eval_batches < 1:
        parser.error(f"--max_eval_batches is {arguments.max_eval_batches}; at least 1 is expected")
    output = arguments.output_dir or first.parent
    from pytorch_port.figures.figure3_sources import PUBLISHED, draw_tables, load_overlay

    overlay = arguments.overlay
    overlay = load_overlay([] if overlay is None else overlay or [PUBLISHED])
    if arguments.runs_csv is None:
        written = draw_tables(
            arguments.metrics_csv,
            output,
            jax_metrics=arguments.jax_metrics_csv,
            curves=arguments.curves_csv,
            overlay=overlay,
        )
    else:
        from pytorch_port.figures.figure3_files import draw_runs
        from pytorch_port.sweep.figure3_tables import merge_metrics, read_metrics

        more = merge_metrics(
            *(read_metrics(path) for path in arguments.metrics_csv),
            *(read_metrics(path, backend="jax") for path in arguments.jax_metrics_csv),
        )
        written = draw_runs(
            arguments.runs_csv,
            output,
            recompute=arguments.recompute,
            max_eval_batches=arguments.max_eval_batches,
            device=arguments.device,
            data_dir=arguments.data_dir,
            extra_rows=more,
            overlay=overlay,
        )
    print("\n".join(map(str, written)))
    return 0
