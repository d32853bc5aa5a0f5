"""Run the parity proofs of all systems in every processor setting, one line for each run.

A setting is a set of vector instructions (ATEN_CPU_CAPABILITY) and a number of threads. Exit status
0 only if every run checked something, failed in nothing and ended by itself.

Example:
    python scripts/prove.py
    python scripts/prove.py deepobs --capability avx2 --threads 1
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from trainrig.cli import Parser, entry, positive_int
from trainrig.commands import verify
from trainrig.errors import nearest


def make_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = Parser(description=__doc__)
    text = f"{', '.join(verify.ports())} (all of them)"
    parser.add_argument("systems", nargs="*", type=_system, metavar="SYSTEM", help=text)
    text = "folder that holds SYSTEM or SYSTEM_golden (../shared/reference, else tests/parity)"
    parser.add_argument("--golden", type=Path, metavar="DIR", help=text)
    text = "numbers of threads (1 2)"
    parser.add_argument("--threads", type=positive_int, nargs="+", default=[1, 2], help=text)
    text = "values of ATEN_CPU_CAPABILITY (all that this machine has)"
    parser.add_argument("--capability", nargs="+", metavar="NAME", help=text)
    return parser


def _system(name: str) -> str:
    known = verify.ports()
    if name not in known:
        accepted = f"known are {', '.join(known)}"
        raise argparse.ArgumentTypeError(
            f"unknown system {name!r}{nearest(name, known)} ({accepted})"
        )
    return name


@entry
def main(argv: list[str] | None = None) -> int:
    """Run all proofs, print a line after each, and what failed at the end."""
    options = make_parser().parse_args(argv)
    from trainrig.proof import Setting, capabilities, heading, own_capability, prove

    commands = {}
    for system in options.systems or verify.ports():
        golden = verify.find_golden(system, options.golden)
        module = ["-m", verify.__name__, system]
        commands[system] = [sys.executable, *module, "--golden", str(golden)]
        print(f"{system}: {golden}")
    available = capabilities(own_capability())
    names = options.capability or available
    for name in names:
        if name not in available:
            accepted = ", ".join(available)
            raise ValueError(f"--capability {name}: this machine has {accepted}")
    settings = [Setting(name, threads) for name in names for threads in options.threads]
    begin, outcomes = time.monotonic(), []
    print(heading(), flush=True)
    for outcome in prove(commands, settings):
        print(outcome.line(), flush=True)
        outcomes.append(outcome)
    for outcome in outcomes:
        for failure in outcome.failures:
            where = f"{outcome.system}, {outcome.setting.capability}, {outcome.setting.threads}"
            print(f"{where}: {failure}")
    bad = sum(not outcome.ok for outcome in outcomes)
    print(f"{len(outcomes)} runs, {bad} failed, {time.monotonic() - begin:.0f} s")
    return 1 if bad else 0
