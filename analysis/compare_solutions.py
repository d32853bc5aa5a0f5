"""Compare finished runs of different optimizers and seeds: sixteen measures and one page.

The same as ``trainrig cifar compare``; ``--help`` says how to use it.
"""

from optimizer_quality.commands.compare import main, make_parser

__all__ = ["main", "make_parser"]

if __name__ == "__main__":
    raise SystemExit(main())
