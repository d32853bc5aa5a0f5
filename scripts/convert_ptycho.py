"""Convert a scan into the canonical NPZ: tike's NPZ (also .bz2), CXI, or Ptychodus's folder.

The same as ``trainrig ptycho convert``; ``--help`` says how to use it.
"""

from ptycho_torch.commands.convert import main, make_parser

__all__ = ["main", "make_parser"]

if __name__ == "__main__":
    raise SystemExit(main())
