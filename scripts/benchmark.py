"""Measure speed as ratios inside one process.

Example:
    python scripts/benchmark.py icl --max-steps 200
    python scripts/benchmark.py cifar

``icl``: steps/s of a real run (sampler, logging, bookkeeping) against a bare hand-written loop over
the same model and ready-made batches; 12 layers, 8 heads, batch 32, symbolic, one thread.

``cifar``: the resident data path against torchvision's, and ResNet-8's training step in several
modes, in CPU seconds of one thread.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from trainrig.cli import Parser, entry


def make_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = Parser(description=__doc__)
    systems = parser.add_subparsers(dest="system", required=True, parser_class=Parser)
    icl = systems.add_parser("icl", help="overhead of a real ICL run over a bare loop")
    icl.add_argument("--config", type=Path, default=Path("configs/icl/symbolic.py"))
    icl.add_argument("--max-steps", type=int, default=200, help="steps per repeat (200)")
    icl.add_argument("--repeats", type=int, default=5, help="pairs of timings (5)")
    icl.add_argument("--threads", type=int, default=1, help="torch threads (1)")
    icl.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (auto)")
    cifar = systems.add_parser("cifar", help="data path and training step of ResNet-8")
    cifar.add_argument("--repeats", type=int, default=4, help="timings of each mode (4)")
    cifar.add_argument("--modes", nargs="+", default=[], help="e.g. 'fp32 NCHW' (all)")
    return parser


@entry
def main(argv: list[str] | None = None) -> int:
    """Print what was measured."""
    arguments = make_parser().parse_args(argv)
    return {"icl": _icl, "cifar": _cifar}[arguments.system](arguments)


def _cifar(arguments: argparse.Namespace) -> int:
    from optimizer_quality.benchmark import measure_data_path, measure_steps, report
    from trainrig.device import set_threads

    set_threads(1)
    steps = measure_steps(repeats=arguments.repeats, modes=tuple(arguments.modes))
    print(report(steps, measure_data_path(repeats=arguments.repeats)))
    return 0


def _icl(arguments: argparse.Namespace) -> int:
    from pytorch_port.config import load_icl_config
    from trainrig.config import apply_overrides

    config = apply_overrides(
        load_icl_config(arguments.config),
        {
            "training_steps": arguments.max_steps,
            "training.eval_interval": arguments.max_steps,
            "training.save_interval": arguments.max_steps,
            "evaluation.batches": 1,
        },
    )
    from pytorch_port.benchmark import measure_overhead

    overhead = measure_overhead(
        config,
        device=arguments.device,
        threads=arguments.threads,
        repeats=arguments.repeats,
    )
    print("bare steps/s  real steps/s  real/bare")
    for bare, real in zip(overhead.bare, overhead.real, strict=True):
        print(f"{bare:12.2f}  {real:12.2f}  {real / bare:9.3f}")
    print(f"median real/bare: {overhead.ratio:.3f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
