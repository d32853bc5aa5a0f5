"""Train the ptychography network on a scan, without labels, and write a reconstruction.

The same as ``trainrig ptycho train``; ``--help`` says how to use it.
"""

from ptycho_torch.commands.train import main, make_parser

__all__ = ["main", "make_parser"]

if __name__ == "__main__":
    raise SystemExit(main())
