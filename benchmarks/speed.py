"""Measure speed as ratios inside one process, with the machine's floors beside them.

Examples:
    python scripts/benchmark.py icl --output runs/benchmarks/icl.json
    python scripts/benchmark.py cifar --cases "resnet8 fp32"

Each case is a training loop of ours that takes turns with what it is compared with; the table shows
run-steps per second, the median ratio over the repeats, the peak memory, and how much of the larger
of two floors (arithmetic, bytes moved) is reached. On one CPU thread seconds are CPU seconds, else
wall seconds. The cases of a system
are defined in ``<system>_cases.py`` beside this file.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

from trainrig.cli import Parser, entry

#: System → the module that defines its cases.
SYSTEMS = {
    "icl": "icl_cases",
    "cifar": "cifar_cases",
    "deepobs": "deepobs_cases",
    "ptycho": "ptycho_cases",
}


def make_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = Parser(description=__doc__)
    parser.add_argument("system", choices=tuple(SYSTEMS))
    parser.add_argument("--cases", nargs="+", default=[], help="names as in the table (all)")
    parser.add_argument("--list", action="store_true", help="print the names of the cases")
    parser.add_argument("--repeats", type=int, default=5, help="timings of each loop (5)")
    parser.add_argument("--steps", type=int, help="steps of a timing (each case's own number)")
    parser.add_argument("--threads", type=int, default=1, help="torch threads (1)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (auto)")
    parser.add_argument(
        "--default-allocator",
        action="store_true",
        help="return freed memory at once, as C programs do and runs here do not",
    )
    parser.add_argument("--data-dir", help="folder of data sets ($TRAINRIG_DATA_DIR, else ./data)")
    parser.add_argument("--output", type=Path, help="JSON file with everything measured (none)")
    parser.add_argument("--figure", type=Path, help="PNG, with PDF and CSV beside it (none)")
    return parser


@entry
def main(argv: list[str] | None = None) -> int:
    """Print the table, and write the file if asked."""
    arguments = make_parser().parse_args(argv)
    from roofline import measure_peaks
    from timing import Options, describe_results, format_results, run_cases
    from trainrig.device import choose_device, reuse_memory, set_threads
    from trainrig.files import write_json
    from trainrig.plotting.speed import draw_results
    from trainrig.report.content import plural

    if not arguments.default_allocator:
        reuse_memory()
    options = Options(
        device=choose_device(arguments.device),
        threads=set_threads(arguments.threads),
        repeats=arguments.repeats,
        steps=arguments.steps,
        data_dir=arguments.data_dir,
    )
    cases = importlib.import_module(SYSTEMS[arguments.system]).cases(options)
    if arguments.list:
        print("\n".join(cases))
        return 0
    peaks, results = measure_peaks(options.device), []
    for result in run_cases(cases, arguments.cases, options, peaks):
        results.append(result)
        print(f"{result.name}: {result.rate:.4g} run-steps/s", file=sys.stderr, flush=True)
        document = describe_results(arguments.system, results, peaks, options)
        if arguments.output:
            write_json(arguments.output, document)
    print(format_results(results))
    if arguments.figure:
        hardware = f"{document['hardware']['cpu']}, {document['hardware'].get('gpu', 'no GPU')}"
        title = f"{hardware}; {plural(options.threads, 'thread')}, {document['clock']} time"
        draw_results(document["results"], arguments.figure, title=title)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
