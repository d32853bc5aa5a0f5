"""The first check on a machine with a GPU: everything that no other machine can show.

Each part is a process of its own with a time limit; one that fails leaves the others alone. After
each part results.json and report.md are written again, so that an interruption loses nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from trainrig.cli import Parser, entry

ROOT = Path(__file__).resolve().parents[1]
PARTS_FILE = ROOT / "benchmarks" / "gpu_parts.py"


@dataclass(frozen=True, slots=True)
class Part:
    """A part: what it shows, a command, and the most seconds that it may take.

    ``{out}`` in a word is a folder of its own, ``{device}`` the device.
    """

    name: str
    shows: str
    command: tuple[str, ...]
    limit_s: int


def _own(name: str, shows: str, limit_s: int) -> Part:
    return Part(name, shows, (str(PARTS_FILE), name, "{out}", "{device}"), limit_s)


def _parity(system: str) -> Part:
    command = ("scripts/verify_parity.py", system, "--device", "{device}", "--precision", "fp32")
    return Part(f"parity {system}", f"{system} against its original, in true fp32", command, 90)


PARTS = (
    _own("facts", "versions, the card, and its measured peaks", 40),
    _own("engines", "engines and turns against each other, beside the model's floors", 120),
    _own("determinism", "two runs, one stopped and continued: equal bits, four systems", 120),
    _own("problems", "a step of each DeepOBS problem", 90),
    _own("patterns", "ptychographic patterns per second", 40),
    _parity("icl"),
    Part(
        "tests",
        "tests that need a device",
        ("-m", "pytest", "-q", "-m", "gpu and not slow", "tests/unit"),
        120,
    ),
)


@dataclass(slots=True)
class Done:
    """How a part ended; ``found`` is the JSON of its last line, if it is some."""

    name: str
    shows: str
    status: str
    seconds: float
    found: object
    output: str


def carry_out(part: Part, folder: Path, device: str, patience: float = 1.0) -> Done:
    """Run a part in a process group of its own, and end the group at its limit."""
    limit_s = patience * part.limit_s
    out = folder / part.name.replace(" ", "_")
    out.mkdir(parents=True, exist_ok=True)
    words = [word.format(out=out, device=device) for word in part.command]
    began = time.monotonic()
    child = subprocess.Popen(
        [sys.executable, *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
        env=os.environ | {"PYTHONWARNINGS": "ignore"},
    )
    try:
        output, _ = child.communicate(timeout=limit_s)
        status = "ok" if child.returncode == 0 else f"exit status {child.returncode}"
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        output, _ = child.communicate()
        status = f"past its limit of {limit_s:.0f} s"
    lines = [line for line in output.splitlines() if line.strip()]
    try:
        found = json.loads(lines[-1]) if lines else None
    except ValueError:
        found = None
    seconds = round(time.monotonic() - began, 1)
    return Done(part.name, part.shows, status, seconds, found, "\n".join(lines[-20:]))


def page(results: Sequence[Done]) -> str:
    """Return the page: a line for each part, then what each found."""
    lines = ["# Check on a GPU", "", "| part | shows | ended | seconds |", "|---|---|---|---|"]
    for done in results:
        lines.append(f"| {done.name} | {done.shows} | {done.status} | {done.seconds} |")
    for done in results:
        lines += ["", f"## {done.name}", ""]
        if isinstance(done.found, list) and done.found and isinstance(done.found[0], dict):
            lines += _table(done.found)
        elif isinstance(done.found, dict):
            lines += _table([{"what": key, "value": v} for key, v in done.found.items()])
        else:
            lines += ["```", done.output, "```"]
    return "\n".join(lines) + "\n"


def _table(rows: Sequence[dict[str, object]]) -> list[str]:
    names = list(rows[0])
    body = ["| " + " | ".join(str(row.get(name, "")) for name in names) + " |" for row in rows]
    return ["| " + " | ".join(names) + " |", "|" + "---|" * len(names), *body]


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("runs/gpu_check"), help="(%(default)s)")
    parser.add_argument("--device", default="cuda", help="cuda or cuda:N (%(default)s)")
    text = "times the limit of each part, for a slow host (1)"
    parser.add_argument("--patience", type=float, default=1.0, help=text)
    names = [part.name for part in PARTS]
    parser.add_argument("--parts", nargs="+", choices=names, default=names, help="(all)")
    return parser.parse_args(argv)


@entry
def main(argv: list[str] | None = None) -> int:
    """Run the parts; exit status 1 if one did not end well."""
    options = parse_args(argv)
    folder = options.output.resolve()
    results: list[Done] = []
    for part in PARTS:
        if part.name not in options.parts:
            continue
        results.append(carry_out(part, folder, options.device, options.patience))
        print(f"{part.name}: {results[-1].status}, {results[-1].seconds} s", flush=True)
        tree = json.dumps([asdict(done) for done in results], indent=1)
        (folder / "results.json").write_text(tree + "\n", "utf-8")
        (folder / "report.md").write_text(page(results), "utf-8")
    print(folder / "report.md")
    return int(any(done.status != "ok" for done in results))


if __name__ == "__main__":
    raise SystemExit(main())
