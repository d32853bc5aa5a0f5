"""Griffe extension: doctests in docstrings become code blocks on the documentation site."""

from __future__ import annotations

import re
from typing import Any

import griffe

#: A line that starts with ``>>>`` and all that follows up to an empty line.
EXAMPLE = re.compile(r"^(>>> .*(?:\n(?!\s*$).+)*)", re.MULTILINE)


class FencedDoctests(griffe.Extension):
    """Put a fence around each doctest."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite an object's docstring."""
        if obj.docstring is not None and ">>> " in obj.docstring.value:
            obj.docstring.value = EXAMPLE.sub(r"```pycon\n\1\n```", obj.docstring.value)
