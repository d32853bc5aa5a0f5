"""Simulate a ptychographic scan with a known object and write it as a canonical NPZ.

The same as ``trainrig ptycho simulate``; ``--help`` says how to use it.
"""

from ptycho_torch.commands.simulate import main, make_parser

__all__ = ["main", "make_parser"]

if __name__ == "__main__":
    raise SystemExit(main())
