"""Train the ptychography network on one scan with several seeds; the mean object and its spread.

The same as ``trainrig ptycho ensemble``; ``--help`` says how to use it.
"""

from ptycho_torch.commands.ensemble import main, make_parser

__all__ = ["main", "make_parser"]

if __name__ == "__main__":
    raise SystemExit(main())
