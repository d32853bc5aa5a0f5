"""Measure speed as ratios inside one process; the work is in ``benchmarks/speed.py``.

Examples:
    python scripts/benchmark.py icl --output runs/benchmarks/icl.json
    python scripts/benchmark.py cifar --cases "resnet8 fp32"
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

from speed import main, make_parser

__all__ = ["main", "make_parser"]

if __name__ == "__main__":
    raise SystemExit(main())
