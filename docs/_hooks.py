"""What the documentation site computes when it is built: help texts and the dependency drawing."""

from __future__ import annotations

import html
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
WIDTH, BOX, GAP = 760, 34, 14
TRAINRIG = (("doctor",), ("data", "list"), ("data", "get"), ("data", "verify"), ("config", "diff"))


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Fill in the markers ``<!-- commands -->`` and ``<!-- dependencies -->``."""
    if "<!-- commands -->" in markdown:
        markdown = markdown.replace("<!-- commands -->", command_reference())
    if "<!-- dependencies -->" in markdown:
        markdown = markdown.replace("<!-- dependencies -->", dependency_drawing())
    return markdown


def command_reference() -> str:
    """Return one section per command with what its ``--help`` prints."""
    sections = []
    for words in TRAINRIG:
        name, text = " ".join(["trainrig", *words]), help_text("-m", "trainrig.command", *words)
        sections.append(f"## `{name}`\n\n```text\n{text}\n```\n")
    for folder in ("analysis", "scripts"):
        for script in sorted((ROOT / folder).glob("*.py")):
            name = f"{folder}/{script.name}"
            sections.append(f"## `{name}`\n\n```text\n{help_text(str(script))}\n```\n")
    return "\n".join(sections)


def help_text(*command: str) -> str:
    """Run ``python <command> --help`` at a fixed width."""
    environment = {**os.environ, "COLUMNS": "96", "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [sys.executable, *command, "--help"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.rstrip()


def layers() -> list[list[str]]:
    """Return the import contract's layers, highest first, scripts on top."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    found = {contract["name"]: contract for contract in contracts}
    top = found["Experiments stand on the core and never on each other"]["layers"][0]
    core = found["The core is layered"]["layers"]
    rows = ["analysis/ | scripts/", top, *core]
    return [[name.strip() for name in row.split("|")] for row in rows]


def dependency_drawing() -> str:
    """Draw the layers as an SVG: a row may import the rows below it and nothing beside it."""
    rows = layers()
    height = len(rows) * (BOX + GAP) + GAP
    shapes = []
    for number, names in enumerate(rows):
        y = GAP + number * (BOX + GAP)
        wide = (WIDTH - GAP * (len(names) + 1)) / len(names)
        shade = "0.16" if number < 2 else "0.06"
        for place, name in enumerate(names):
            x = GAP + place * (wide + GAP)
            shapes.append(
                f'<rect x="{x:.0f}" y="{y}" width="{wide:.0f}" height="{BOX}" rx="4" '
                f'fill="currentColor" fill-opacity="{shade}" stroke="currentColor"/>'
                f'<text x="{x + wide / 2:.0f}" y="{y + BOX / 2 + 5:.0f}" text-anchor="middle" '
                f'fill="currentColor" font-size="13">{html.escape(name)}</text>'
            )
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" '
        'aria-label="layers of the code, each importing those below it">'
        f"{re.sub(chr(10), '', ''.join(shapes))}</svg>"
    )
