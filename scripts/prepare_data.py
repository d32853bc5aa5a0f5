"""Put the data sets of the DeepOBS problems below one folder.

The same as ``trainrig deepobs prepare``; ``--help`` says how to use it.
"""

from deepobs.commands.prepare import main, make_parser

__all__ = ["main", "make_parser"]

if __name__ == "__main__":
    raise SystemExit(main())
