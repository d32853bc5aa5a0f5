"""Check this GPU in minutes: parity, determinism, speed; see ``benchmarks/gpu_report.py``.

Example:
    python scripts/gpu_check.py --output runs/gpu_check
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

from gpu_report import main, parse_args

__all__ = ["main", "parse_args"]

if __name__ == "__main__":
    raise SystemExit(main())
