"""What the documentation site computes when built: help texts, import drawing, module list."""

from __future__ import annotations

import ast
import html
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
WIDTH, BOX, GAP, WIDEST = 760, 30, 26, 130
TRAINRIG = (("doctor",), ("data", "list"), ("data", "get"), ("data", "verify"), ("config", "diff"))


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Fill in the markers ``commands``, ``dependencies`` and ``modules``, each an HTML comment."""
    if "<!-- commands -->" in markdown:
        markdown = markdown.replace("<!-- commands -->", command_reference())
    if "<!-- dependencies -->" in markdown:
        markdown = markdown.replace("<!-- dependencies -->", dependency_drawing())
    if "<!-- modules -->" in markdown:
        markdown = markdown.replace("<!-- modules -->", module_list())
    return markdown


def module_list() -> str:
    """Return one table per package: each module with the first line of its docstring."""
    tables = []
    for package in sorted(p.parent for p in (ROOT / "src").glob("*/__init__.py")):
        rows = []
        for path in sorted(package.rglob("*.py")):
            text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
            first = text.partition("\n")[0].replace("|", "\\|")
            rows.append(f"| `{path.relative_to(package.parent).as_posix()}` | {first} |")
        head = f"### `{package.name}`\n\n| module | what it holds |\n|---|---|"
        tables.append("\n".join([head, *rows]))
    return "\n\n".join(tables)


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
    environment = {**os.environ, "COLUMNS": "84", "PYTHONPATH": str(ROOT / "src")}
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


def imports() -> dict[str, set[str]]:
    """Return what each drawn part imports by the real import graph, directly."""
    import grimp

    drawn = {name for row in layers()[1:] for name in row}
    experiments = [name for name in drawn if (ROOT / "src" / name).is_dir()]
    graph = grimp.build_graph("trainrig", *experiments)
    parts = {name: name if name in experiments else f"trainrig.{name}" for name in drawn}
    for module in parts.values():
        graph.squash_module(module)
    names = {module: name for name, module in parts.items()}
    return {
        name: {
            names[other]
            for other in graph.find_modules_directly_imported_by(module)
            if other in names and other != module
        }
        for name, module in parts.items()
    }


def shortest(edges: dict[str, set[str]]) -> dict[str, set[str]]:
    """Leave out each import that also leads over another one: the lines that remain to be drawn."""

    def reached(name: str) -> set[str]:
        return {name}.union(*(reached(other) for other in edges[name]))

    return {
        name: {
            other
            for other in direct
            if not any(other in reached(step) for step in direct - {other})
        }
        for name, direct in edges.items()
    }


def dependency_drawing() -> str:
    """Draw the layers of the contract as an SVG, with the imports that the code really has."""
    rows, edges = layers(), imports()
    height = len(rows) * (BOX + GAP) + GAP
    boxes, centres = [], {}
    for number, names in enumerate(rows):
        y = GAP + number * (BOX + GAP)
        column = WIDTH / len(names)
        wide = min(column - GAP / 2, WIDEST)
        shade = "0.16" if number < 2 else "0.06"
        for place, name in enumerate(names):
            middle = (place + 0.5) * column
            centres[name] = (middle, y)
            told = ", ".join(sorted(edges.get(name, ()))) or "nothing of these"
            at = f'x="{middle - wide / 2:.0f}" y="{y}" width="{wide:.0f}" height="{BOX}" rx="4"'
            boxes.append(
                f'<rect {at} style="fill:var(--md-default-bg-color,#fff)"/>'  # hides the lines
                f'<rect {at} fill="currentColor" fill-opacity="{shade}" stroke="currentColor">'
                f"<title>{html.escape(name)} imports {html.escape(told)}</title></rect>"
                f'<text x="{middle:.0f}" y="{y + BOX / 2 + 5:.0f}" text-anchor="middle" '
                f'fill="currentColor" font-size="13" pointer-events="none">'
                f"{html.escape(name)}</text>"
            )
    lines = [
        _line(centres[name], centres[other])
        for name, direct in sorted(shortest(edges).items())
        for other in sorted(direct)
    ]
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" '
        'aria-label="layers of the code, each importing those below it">'
        f"{''.join(lines)}{''.join(boxes)}</svg>"
    )


def _line(importer: tuple[float, float], imported: tuple[float, float]) -> str:
    """Draw an import from the foot of one box to the head of another."""
    (x0, y0), (x1, y1) = importer, imported
    y0 += BOX
    bend = (y1 - y0) / 2
    return (
        f'<path d="M{x0:.0f} {y0:.0f}C{x0:.0f} {y0 + bend:.0f} {x1:.0f} {y1 - bend:.0f} '
        f'{x1:.0f} {y1:.0f}" fill="none" stroke="currentColor" stroke-opacity="0.35"/>'
    )
