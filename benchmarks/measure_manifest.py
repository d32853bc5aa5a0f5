"""Measure how long the rebuild of a sweep's ``runs.csv`` takes over many run folders.

Example:
    python benchmarks/measure_manifest.py --runs 1000 10000 100000
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from trainrig.cli import Parser, entry, positive_int
from trainrig.files import scratch_folder


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(description=__doc__)
    parser.add_argument("--runs", type=positive_int, nargs="+", default=[1000], help="(1000)")
    return parser.parse_args(argv)


def manifest(runs: int) -> None:
    """Time the rebuild of ``runs.csv`` over so many run folders."""
    from pytorch_port.config.files import load_icl_config
    from pytorch_port.sweep.grid import SweepRun
    from pytorch_port.sweep.runs_table import write_runs_csv
    from trainrig.config import to_dict
    from trainrig.runs import LATEST

    config = load_icl_config(Path("configs/icl/quick.py"))
    with scratch_folder(Path("runs")) as folder:
        base, planned = folder, []
        identity = json.dumps({**to_dict(config), "images": {}})
        for k in range(runs):
            (base / str(k) / LATEST / "step_1000").mkdir(parents=True)
            (base / str(k) / "config.json").write_text(identity)
            (base / str(k) / "status.json").write_text(json.dumps({"status": "complete"}))
            planned.append(SweepRun(name=str(k), class_count=100, config=config))
        started = time.perf_counter()
        table = write_runs_csv(planned, base, Path("quick.py"))
        seconds, size = time.perf_counter() - started, table.stat().st_size
    print(f"{runs} runs: runs.csv rebuilt in {seconds:.2f} s, {size / 2**20:.1f} MB", flush=True)


@entry
def main(argv: list[str] | None = None) -> int:
    """Measure and print."""
    for runs in parse_args(argv).runs:
        manifest(runs)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
