"""Reconstruct a scan: with a trained network, refined by iterations, or by iterations alone.

The same as ``trainrig ptycho infer``; ``--help`` says how to use it.
"""

from ptycho_torch.commands.infer import main, make_parser

__all__ = ["main", "make_parser"]

if __name__ == "__main__":
    raise SystemExit(main())
