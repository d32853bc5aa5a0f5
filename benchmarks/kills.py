"""A soak: the same commands over and over, killed at random moments, compared at every end.

Each command runs in a forked child, which is killed with SIGKILL at a moment drawn over its usual
duration and started again, until it ends by itself; then everything that it left and that no clock
decides must equal what an undisturbed run left. Orphans are reparented to the soak and counted.
"""

from __future__ import annotations

import contextlib
import csv
import ctypes
import hashlib
import importlib
import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from trainrig.tracking.metric_log import TIMING_KEYS

#: Keys and columns that clocks or places decide.
_NOT_COMPARED = {*TIMING_KEYS, "timing", "timestamp", "config", "log_sizes", "log"}
_NOT_COMPARED |= {"epoch_seconds", "seconds", "result"}  # DeepOBS's result is named by the date
#: Seconds that children of a killed process have to notice it.
_ORPHAN_PATIENCE_S = 10.0


@dataclass(frozen=True, slots=True)
class Command:
    """A script of the repository with its arguments.

    Attributes:
        name: the system, as reported.
        script: module with ``main(argv) -> int``, importable.
        argv: arguments for an output folder.
        preload: modules to import before the first fork.
    """

    name: str
    script: str
    argv: Callable[[Path], Sequence[str]]
    preload: Sequence[str] = ()


@dataclass(slots=True)
class Tally:
    """What happened to one command.

    Attributes:
        runs: that came to their end and were compared.
        kills: processes ended by our SIGKILL.
        resumes: starts in a folder that held a run.
        mismatches: runs that left anything else than the undisturbed one, or ended with an error.
        leaked: processes that outlived their killed parent.
        peak_mb: largest resident size of a child, in its first and in its latest runs.
        differing: the first files that differed.
    """

    runs: int = 0
    kills: int = 0
    resumes: int = 0
    mismatches: int = 0
    leaked: int = 0
    peak_mb: list[float] = field(default_factory=list)
    differing: list[str] = field(default_factory=list)


def table(tallies: Mapping[str, Tally]) -> list[str]:
    """Return a heading and a line for each command."""
    lines = [
        "system    runs  kills  resumes  mismatches  leaked  child peak MB, first and last run"
    ]
    return lines + [
        f"{name:<8} {t.runs:>5} {t.kills:>6} {t.resumes:>8} {t.mismatches:>11} {t.leaked:>7}  "
        f"{t.peak_mb[0]:.0f} {t.peak_mb[-1]:.0f}  {' '.join(t.differing[:3])}"
        for name, t in tallies.items()
    ]


def soak(
    commands: Sequence[Command], folder: Path, *, seconds: float, kills: int, seed: int = 0
) -> Iterator[dict[str, Tally]]:
    """Run the commands in turn until the time is over and the kills are done.

    Args:
        commands: of the systems.
        folder: scratch; emptied of each run that was equal.
        seconds: at least so long.
        kills: at least so many in all.
        seed: of the moments.

    Yields:
        The tallies by command, after every run that came to its end.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER: orphans become ours
    for module in {name for command in commands for name in command.preload}:
        importlib.import_module(module)
    moments, deadline = random.Random(seed), time.monotonic() + seconds
    tallies = {command.name: Tally() for command in commands}
    expected = {command.name: _undisturbed(command, folder) for command in commands}
    while time.monotonic() < deadline or sum(t.kills for t in tallies.values()) < kills:
        for command in commands:
            _until_the_end(command, folder, *expected[command.name], moments, tallies[command.name])
            yield tallies


def _undisturbed(command: Command, folder: Path) -> tuple[dict[str, str], float]:
    path = folder / f"{command.name}_undisturbed"
    _run(command, path, None)  # fills caches
    shutil.rmtree(path)
    started = time.monotonic()
    code, _ = _run(command, path, None)
    if code != 0:
        raise RuntimeError(f"{command.name}: ended with {code}; see {path}.log")
    return fingerprint(path), time.monotonic() - started


def _until_the_end(
    command: Command,
    folder: Path,
    expected: dict[str, str],
    duration_s: float,
    moments: random.Random,
    tally: Tally,
) -> None:
    path, own = folder / command.name, set(_children())
    code = -signal.SIGKILL
    while code == -signal.SIGKILL:
        tally.resumes += path.exists()
        code, peak_mb = _run(command, path, moments.uniform(0.02, 1.0) * duration_s)
        tally.kills += code == -signal.SIGKILL
        tally.leaked += _count_orphans(own)
    tally.runs += 1
    tally.peak_mb.append(peak_mb)
    found = fingerprint(path) if code == 0 else {"exit status": str(code)}
    differing = [name for name in {**expected, **found} if expected.get(name) != found.get(name)]
    if differing:
        tally.mismatches += 1
        tally.differing += differing
        path.rename(path.with_name(f"{command.name}_mismatch_{tally.mismatches}"))
    else:
        shutil.rmtree(path)


def _run(command: Command, path: Path, kill_after_s: float | None) -> tuple[int, float]:
    """Return the exit status (negative: a signal) and the peak resident size in MB."""
    pid = os.fork()
    if pid == 0:
        _child(command, path)
    if kill_after_s is not None:
        deadline = time.monotonic() + kill_after_s
        while time.monotonic() < deadline:
            if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                break
            time.sleep(min(0.01, max(deadline - time.monotonic(), 0)))
        else:
            os.kill(pid, signal.SIGKILL)
    _, status, usage = os.wait4(pid, 0)
    return os.waitstatus_to_exitcode(status), usage.ru_maxrss / 1024


def _child(command: Command, path: Path) -> None:
    code = 70
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        log = os.open(f"{path}.log", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ["TQDM_DISABLE"] = "1"
        argv = [str(word) for word in command.argv(path)]
        sys.argv = [command.script, *argv]
        code = importlib.import_module(command.script).main(argv)
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _count_orphans(own: set[int]) -> int:
    """Return the processes below this one, ``own`` aside, that do not end by themselves."""
    deadline = time.monotonic() + _ORPHAN_PATIENCE_S
    while orphans := _children() - own:
        for pid in orphans:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        if time.monotonic() > deadline:
            return len(orphans)
        time.sleep(0.01)
    return 0


def _children() -> set[int]:
    files = Path("/proc/self/task").glob("*/children")
    return {int(word) for file in files for word in file.read_text().split()}


def fingerprint(folder: Path) -> dict[str, str]:
    """Return a digest of each result file below ``folder``, without what clocks or places decide.

    Compared are JSON, JSON lines, CSV tables, PyTorch files (every tensor and number), NPZ and
    images; not ``environment.json``, manifests (they hold digests of times) and plain logs.
    """
    found = {}
    for path in sorted(folder.rglob("*")):
        content = _comparable(path) if path.is_file() else None
        if content is not None:
            name = str(path.relative_to(folder)).split("__20")[0]  # DeepOBS names hold the date
            found[name] = hashlib.sha256(content).hexdigest()
    return found


def _comparable(path: Path) -> bytes | None:
    if path.name == "tuning_log.json":  # lines of JSON
        return path.read_bytes()
    if path.suffix == ".json" and path.name not in ("environment.json", "manifest.json"):
        return json.dumps(_without_clocks(json.loads(path.read_text())), sort_keys=True).encode()
    if path.name == "runs.csv":
        rows = csv.DictReader(path.read_text().splitlines())
        return json.dumps([_without_clocks(dict(row)) for row in rows]).encode()
    if path.suffix in (".jsonl", ".csv", ".npz", ".png"):
        return path.read_bytes()
    if path.suffix in (".pt", ".ckpt"):
        content = torch.load(path, map_location="cpu", weights_only=True)
        return b"".join(_bits(_without_clocks(content)))
    return None


def _without_clocks(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_clocks(v) for k, v in value.items() if k not in _NOT_COMPARED}
    return [_without_clocks(v) for v in value] if isinstance(value, list | tuple) else value


def _bits(value: Any) -> Iterable[bytes]:
    if isinstance(value, torch.Tensor):
        yield f"{value.dtype}{tuple(value.shape)}".encode()
        yield value.contiguous().view(-1).view(torch.uint8).numpy().tobytes()
    elif isinstance(value, dict):
        for key, item in value.items():
            yield repr(key).encode()
            yield from _bits(item)
    elif isinstance(value, list):
        for item in value:
            yield from _bits(item)
    else:
        yield repr(value).encode()


def own_size() -> tuple[int, float]:
    """Return this process's open file handles and its resident size in MB."""
    handles = len(os.listdir("/proc/self/fd"))
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return handles, pages * os.sysconf("SC_PAGE_SIZE") / 2**20
