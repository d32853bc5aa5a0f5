"""Quick regression: short runs at 100 and 1600 classes, held against archived bounds.

The same as ``trainrig icl regression``; ``--help`` says how to use it.
"""

from pytorch_port.commands.regression import main, make_parser

__all__ = ["main", "make_parser"]

if __name__ == "__main__":
    raise SystemExit(main())
