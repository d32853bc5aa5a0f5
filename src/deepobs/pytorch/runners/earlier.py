"""Results that are there already: found by what was run, not by the name of a folder."""

from __future__ import annotations

import time
from functools import lru_cache
from pathlib import Path
from typing import Any

from deepobs.identity import age_of, seed_of, setting_of
from deepobs.pytorch.runners.results import describe_settings, strict
from deepobs.pytorch.runners.settings import RunSettings
from trainrig.files import read_json, write_json

#: What a repetition may want otherwise although it trains the same numbers.
LOGGED = ("train_log_interval",)
#: Beside the results of an optimizer while a search is being repeated.
REPETITION = ".again.json"


def find_result(settings: RunSettings, output_dir: Path | str, since_ns: int = 0) -> Path | None:
    """Return the newest result of the same problem, optimizer, setting and seed below a root.

    It may lie in a folder of another name: an argument left out equals its default given. A result
    that logged its minibatch losses at other steps, or that diverged under another
    ``on_divergence``, is none; nor is a file that was written before ``since_ns``.
    """
    problem = Path(output_dir) / settings.testproblem
    wanted = strict(describe_settings(settings) | {"environment": {"dtype": settings.dtype}})
    key = setting_of(wanted, settings.optimizer_name)
    name = settings.optimizer_name.casefold()
    folders = [f for f in problem.glob("*") if f.name.casefold() == name and f.is_dir()]
    files = [
        path
        for folder in folders
        for path in folder.glob(f"*/random_seed__{settings.random_seed}__*.json")
    ]
    for path in sorted(files, key=age_of, reverse=True):
        written_ns = path.stat().st_mtime_ns
        facts = None if written_ns < since_ns else _facts(path, written_ns)
        if facts is None or (facts["setting"], facts["seed"]) != (key, settings.random_seed):
            continue
        same = (*LOGGED, "on_divergence") if facts["status"] == "diverged" else LOGGED
        if all(facts[name] in (None, wanted[name]) for name in same):
            return path
    return None


def begin_repetition(folder: Path) -> int:
    """Return when the repetition of a search began, in ns: of one that was interrupted, or now.

    So the same command, given again after an interruption, repeats no point twice.
    """
    marker = folder / REPETITION
    if not marker.exists():
        write_json(marker, {"since_ns": time.time_ns()})
    return int(read_json(marker)["since_ns"])


def end_repetition(folder: Path) -> None:
    """Note that nothing of a repetition is left to do."""
    (folder / REPETITION).unlink(missing_ok=True)


@lru_cache(maxsize=4096)
def _facts(path: Path, modified_ns: int) -> dict[str, Any] | None:
    """Return what identifies a result file, read once; None for a file that is no result."""
    del modified_ns  # a part of the key
    try:
        content = read_json(path)
        optimizer = str(content.get("optimizer") or content.get("optimizer_name"))
        found = {"setting": setting_of(content, optimizer), "seed": seed_of(content, path)}
    except (ValueError, KeyError, TypeError, AttributeError, OSError):
        return None
    names = ("status", *LOGGED, "on_divergence")
    return found | {name: content.get(name) for name in names}
