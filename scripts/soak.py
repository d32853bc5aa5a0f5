"""Kill small runs of all four systems at random moments; see ``benchmarks/soak_runs.py``.

Example:
    python scripts/soak.py --minutes 30 --kills 200
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

from soak_runs import main, parse_args

__all__ = ["main", "parse_args"]

if __name__ == "__main__":
    raise SystemExit(main())
