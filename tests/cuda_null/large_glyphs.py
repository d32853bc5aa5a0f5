"""Run on the null GPU: runs a script, with procedural glyphs of Omniglot's 105 pixels.

python large_glyphs.py script.py args...
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

from trainrig.data import glyphs


def load_source(*_: object, **__: object) -> object:
    """Return a bank just large enough for ``commands.icl_images``."""
    return glyphs.load_glyphs(60, 20, 105, cache=False)


glyphs.load_source = load_source
sys.argv = sys.argv[1:]
sys.path[0] = str(Path(sys.argv[0]).resolve().parent)
runpy.run_path(sys.argv[0], run_name="__main__")
