"""Sweep the number of classes (Figure 3a/3b): accuracy against step, one line per class count.

The same as ``trainrig icl figure3a``; ``--help`` says how to use it.
"""

from pytorch_port.commands.figure3a import main, make_parser

__all__ = ["main", "make_parser"]

if __name__ == "__main__":
    raise SystemExit(main())
