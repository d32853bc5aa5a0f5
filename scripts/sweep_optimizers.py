"""Compare optimizers over learning rates and seeds; the rate is chosen on validation only.

The same as ``trainrig cifar sweep``; ``--help`` says how to use it.
"""

from optimizer_quality.commands.sweep import main, make_parser

__all__ = ["main", "make_parser"]

if __name__ == "__main__":
    raise SystemExit(main())
