"""Write the table of docs/optimizers.md from outcomes of the contract tests.

A cell without a new outcome stays as it is.

Example:
    TRAINRIG_CONTRACT_TABLE=outcomes.jsonl make full
    python tests/contract/table.py outcomes.jsonl
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

#: What an optimizer cannot be built without.
ARGUMENTS = {"pytorch_optimizer.SAM": {"base_optimizer": "sgd"}}
PAGE = Path(__file__).parents[2] / "docs" / "optimizers.md"
MARK = "<!-- contract table -->"
NO_NEEDS = "gradient, then `step()`"


def shown(found: str) -> str:
    """Return an outcome as a cell shows it."""
    text = found.removeprefix("refused: ")
    if text == found:
        return found
    reason = re.sub(r"^optimizer '?[\w.]+'?: ", "", text).partition(";")[0]
    reason = re.sub(r" \((?:parameter \d|after two) [^)]*\)", "", reason)  # where it is seen
    return f"refused: {reason}"


def read(files: list[str]) -> dict[str, dict[str, str]]:
    """Return outcomes by optimizer and system; the last one of each counts."""
    found: dict[str, dict[str, str]] = {}
    for file in files:
        for line in Path(file).read_text(encoding="utf-8").splitlines():
            system, name, outcome = json.loads(line)
            found.setdefault(name, {})[system] = shown(outcome)
    return found


def rows_of_page() -> dict[str, list[str]]:
    """Return the table of docs/optimizers.md by optimizer."""
    body = PAGE.read_text(encoding="utf-8").partition(MARK)[2]
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in body.splitlines()
        if line.startswith("| `")
    ]
    return {row[0].strip("`"): row[1:] for row in cells}


def needs(name: str) -> str:
    """Return what an optimizer needs of a step, in words."""
    from torch import nn

    from trainrig.optim import accepts, make_optimizer
    from trainrig.optim.needs import needs_of

    try:
        options = ({"lr": 0.01} if accepts(name, "lr") else {}) | ARGUMENTS.get(name, {})
        found = needs_of(make_optimizer(name, nn.Linear(3, 2).parameters(), **options)).describe()
    except ValueError:
        return "a step that no loop takes"
    words = [
        f"`{key}`" if value else f"no `{key}`"
        for key, value in found.items()
        if key != "contiguous"
    ]
    return ", ".join(words) or NO_NEEDS


def table(found: dict[str, dict[str, str]], systems: list[str], names: list[str]) -> str:
    """Return the table, a row for each optimizer."""
    lines = [f"| optimizer | needs | {' | '.join(systems)} |", "|---" * (len(systems) + 2) + "|"]
    for name in names:
        before = rows_of_page().get(name, [""] * (1 + len(systems)))[1:]
        cells = [found.get(name, {}).get(s, old) for s, old in zip(systems, before, strict=True)]
        if not all(cells):
            raise ValueError(f"{name}: no outcome for {systems[cells.index('')]}; run its tests")
        lines.append(f"| `{name}` | {needs(name)} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main(files: list[str]) -> None:
    """Replace the page's table."""
    sys.path.insert(0, str(Path(__file__).parent))
    import test_systems

    before = PAGE.read_text(encoding="utf-8").partition(MARK)[0]
    body = table(read(files), list(test_systems.SYSTEMS), test_systems.NAMES)
    PAGE.write_text(f"{before}{MARK}\n\n{body}", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
