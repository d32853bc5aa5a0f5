"""Train ResNet-8 with one optimizer and record the run.

The same as ``trainrig cifar train``; ``--help`` says how to use it.
"""

from optimizer_quality.commands.train import main, make_parser

__all__ = ["main", "make_parser"]

if __name__ == "__main__":
    raise SystemExit(main())
