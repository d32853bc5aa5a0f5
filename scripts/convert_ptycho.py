"""Convert a scan into the canonical NPZ: tike's NPZ (also .bz2), CXI, or Ptychodus's folder.

The same as ``trainrig ptycho convert``; ``--help`` says how to use it.
"""

from ptycho_torch.commands.convert import main, parse_args

__all__ = ["main", "parse_args"]

if __name__ == "__main__":
    raise SystemExit(main())
