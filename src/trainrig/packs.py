"""Sweeps whose runs are trained several at a time, as one program.

Which runs form a pack is planned once, when a sweep starts, and kept in ``<sweep>/manifest.json``:
a resumed pack must consist of the same runs to give the same bits. A pack that runs out of memory
is halved, which the plan then says.
"""

from __future__ import annotations

import dataclasses
import gc
import itertools
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from trainrig.checkpoint import list_checkpoints
from trainrig.cli import PackSize
from trainrig.files import read_json, write_json
from trainrig.launch.launcher import start
from trainrig.launch.options import LaunchOptions
from trainrig.recorder import say
from trainrig.run_status import has_ended, read_status
from trainrig.runs import LATEST
from trainrig.sweep import Outcome, Task

MANIFEST = "manifest.json"
OUT_OF_MEMORY = "out of memory"
MEMORY_SHARE = 0.8
"""Share of the free memory that ``auto`` plans with."""
LARGEST_AUTO = 64
"""``auto`` packs no more runs than this."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class PlannedRun:
    """One run of a sweep.

    Attributes:
        name: of its folder.
        length: steps or epochs, as its status counts.
        key: what runs of one pack have in common; None for a run that cannot be packed.
        member: what the function that trains it is given, picklable.
    """

    name: str
    length: int
    key: str | None = None
    member: Any = None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class PackPlan:
    """The plan of a sweep.

    Attributes:
        size: most runs in a pack.
        packs: names of the runs of each pack.
        alone: names of the runs that are trained one by one: finished before, or like no other.
        memory: what ``auto`` chose ``size`` from: ``free_bytes``, ``bytes_per_run``, ``jobs``;
            empty for a size that was given.
    """

    size: int
    packs: tuple[tuple[str, ...], ...] = ()
    alone: tuple[str, ...] = ()
    memory: dict[str, int] = dataclasses.field(default_factory=dict)

    @property
    def names(self) -> set[str]:
        """All runs that have a place."""
        return {*self.alone, *(name for pack in self.packs for name in pack)}

    def pack_of(self, name: str) -> tuple[str, ...]:
        """Return the pack of a run, empty for one that is trained alone."""
        return next((pack for pack in self.packs if name in pack), ())

    def with_runs(self, runs: Iterable[PlannedRun], base_dir: Path | None) -> PackPlan:
        """Return the plan with places for further runs, in packs of their own.

        Runs that have begun in ``base_dir`` are packed with others that stand at the same step.
        """
        groups: dict[Any, list[str]] = {}
        alone = list(self.alone)
        for run in runs:
            key, step = run.key, 0
            if base_dir is not None:
                found = list_checkpoints(base_dir / run.name / LATEST)
                step = found[-1][0] if found else 0
                key = None if has_ended(base_dir / run.name, run.length) else key
            if key is None:
                alone.append(run.name)
            else:
                groups.setdefault((key, step), []).append(run.name)
        packs = [pack for names in groups.values() for pack in _parts(names, self.size)]
        alone += [pack[0] for pack in packs if len(pack) == 1]
        packs = [pack for pack in packs if len(pack) > 1]
        return dataclasses.replace(self, packs=(*self.packs, *packs), alone=tuple(alone))

    def halved(self, pack: Sequence[str]) -> PackPlan:
        """Return the plan with one pack split in two, and no new one larger than the halves."""
        half = -(-len(pack) // 2)
        packs = [
            part for p in self.packs for part in (_parts(p, half) if p == tuple(pack) else [p])
        ]
        return dataclasses.replace(self, packs=tuple(packs), size=half)


def _parts(names: Sequence[str], size: int) -> list[tuple[str, ...]]:
    """Split into parts of at most ``size``, nearly equal.

    >>> _parts("abcde", 3)
    [('a', 'b'), ('c', 'd', 'e')]
    """
    count = math.ceil(len(names) / size)
    bounds = [round(i * len(names) / count) for i in range(count + 1)]
    return [tuple(names[a:b]) for a, b in itertools.pairwise(bounds)]


def read_plan(base_dir: Path) -> PackPlan | None:
    """Return the plan of a sweep, None where there is none.

    Raises:
        ValueError: a damaged file.
    """
    path = base_dir / MANIFEST
    try:
        tree = read_json(path)
        packs = tuple(tuple(map(str, names)) for names in tree["packs"])
        alone = tuple(map(str, tree["alone"]))
        size, memory = int(tree["size"]), dict(tree["memory"])
        return PackPlan(size=size, packs=packs, alone=alone, memory=memory)
    except FileNotFoundError:
        return None
    except (LookupError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: holds no pack plan ({error}); restore it, or remove it and give "
            "--force-engine-change"
        ) from None


def write_plan(plan: PackPlan, base_dir: Path) -> None:
    """Write ``<sweep>/manifest.json``."""
    write_json(base_dir / MANIFEST, dataclasses.asdict(plan))


def make_plan(
    runs: Sequence[PlannedRun],
    base_dir: Path,
    pack: PackSize,
    *,
    choose: Callable[[], tuple[int, dict[str, int]]],
    overwrite: bool = False,
    force: bool = False,
) -> PackPlan | None:
    """Return the plan that a sweep follows, writing nothing; None where no run is packed.

    Args:
        runs: of the sweep.
        base_dir: holds the plan of an earlier start, which is kept.
        pack: most runs in a pack, or ``auto``.
        choose: returns the size that ``auto`` stands for, and why; see ``fitting``.
        overwrite: the runs start over, and so does the plan.
        force: let unfinished runs change over to other packs.

    Raises:
        ValueError: no size, or another one than the sweep was begun with; or a damaged plan.
    """
    if pack != "auto" and pack < 1:
        raise ValueError(f"--pack {pack}: must be at least 1")
    present = None if overwrite else read_plan(base_dir)
    if pack == 1:
        return None
    if present is not None and pack in ("auto", present.size):
        _check_complete(present, runs, base_dir)
        return present.with_runs((r for r in runs if r.name not in present.names), base_dir)
    if present is not None and not force:
        raise ValueError(
            f"{base_dir / MANIFEST}: this sweep has packs of up to {present.size} runs, not {pack};"
            " give --pack auto to keep them, or --force-engine-change to make new packs"
        )
    size, memory = (pack, {}) if pack != "auto" else choose()
    plan = PackPlan(size=size, memory=memory)
    return plan.with_runs(runs, None if overwrite else base_dir)


def _check_complete(plan: PackPlan, runs: Sequence[PlannedRun], base_dir: Path) -> None:
    """Refuse to continue a part of a pack.

    Raises:
        ValueError: an unfinished pack has runs among ``runs`` and others.
    """
    lengths = {run.name: run.length for run in runs}
    for pack in plan.packs:
        others = set(pack) - lengths.keys()
        done = all(has_ended(base_dir / name, lengths.get(name)) for name in pack)
        if others and len(others) < len(pack) and not done:
            raise ValueError(
                f"{base_dir / MANIFEST}: {min(others)} is in a pack with runs of this command, but "
                "not one of them; give the sweep's whole grid"
            )


def share_out(runs: Sequence[PlannedRun], keys: Sequence[Any], jobs: int) -> PackPlan:
    """Return a plan for runs that take turns: one share for each job, of runs of equal keys."""
    groups: dict[Any, list[str]] = {}
    for run, key in zip(runs, keys, strict=True):
        groups.setdefault(key, []).append(run.name)
    size = math.ceil(len(runs) / jobs)
    packs = tuple(part for names in groups.values() for part in _parts(names, size))
    return PackPlan(size=size, packs=packs)


def keep_plan(plan: PackPlan | None, base_dir: Path, *, replace: bool) -> None:
    """Write the plan; without one, an earlier one stays unless its runs may continue alone."""
    if plan is not None:
        write_plan(plan, base_dir)
    elif replace:
        (base_dir / MANIFEST).unlink(missing_ok=True)


def fitting(
    bytes_per_run: int, device: torch.device, *, runs: int, jobs: int
) -> tuple[int, dict[str, int]]:
    """Return how many runs fit into the free memory, ``jobs`` packs side by side, and why.

    A pack is also no larger than lets every job have one.
    """
    free = free_bytes(device)
    size = int(MEMORY_SHARE * free / jobs / bytes_per_run)
    size = max(1, min(size, LARGEST_AUTO, math.ceil(runs / jobs)))
    return size, {"free_bytes": free, "bytes_per_run": bytes_per_run, "jobs": jobs}


def bytes_per_run(model: torch.nn.Module, loss: Callable[[], torch.Tensor], drawn: int) -> int:
    """Return what one run adds to a pack: what backward needs, parameters and their companions.

    Measured on one forward pass, by the tensors that autograd keeps; half as much again is taken
    for what lives during the backward pass alone.

    Args:
        model: of the run.
        loss: computes the loss of one batch.
        drawn: bytes of the batch.
    """
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = loss()
    del result
    copies = 5  # parameters, gradients, a copy of these, two averages
    weights = sum(p.nbytes for p in model.parameters())
    return math.ceil(1.5 * (sum(kept.values()) + drawn)) + copies * weights


def free_bytes(device: torch.device) -> int:
    """Return the memory that is free on a device.

    Raises:
        ValueError: the operating system does not say.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    for line in Path("/proc/meminfo").read_text().splitlines() if os.name == "posix" else ():
        if line.startswith("MemAvailable:"):
            return 1024 * int(line.split()[1])
    raise ValueError("--pack auto: the free memory is not known here; give --pack K")


def or_out_of_memory(work: Callable[[], str]) -> str:
    """Return what ``work`` returns, or ``OUT_OF_MEMORY``, with the memory that it held released."""
    try:
        return work()
    except (torch.OutOfMemoryError, MemoryError):
        pass
    except RuntimeError as error:
        if "can't allocate memory" not in str(error):  # torch's words for the CPU
            raise
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return OUT_OF_MEMORY


def execute(
    runs: Sequence[PlannedRun],
    base_dir: Path,
    options: LaunchOptions,
    work: Callable[..., str],
    plan: PackPlan | None = None,
    *,
    overwrite: bool = False,
    **arguments: Any,
) -> Iterator[Outcome]:
    """Train what is not finished yet, by the launcher of ``options``; yield each run's outcome.

    A task is one run, or one pack of the plan; a pack that runs out of memory is halved, which
    the plan in ``base_dir`` then says.

    Args:
        runs: of the sweep.
        base_dir: of the run directories.
        options: who carries the tasks out.
        work: a picklable, module-level function ``work(members, packed, position, **arguments)``
            that trains them and returns a status; see ``or_out_of_memory``.
        plan: of ``make_plan``; None trains every run alone.
        overwrite: finished runs start over.
        **arguments: further ones of ``work``.
    """
    base_dir = base_dir.resolve()  # a job may start in another folder
    known = {run.name: run for run in runs}
    members: dict[str, Sequence[str]] = {}

    def is_open(name: str) -> bool:
        return overwrite or not has_ended(base_dir / name, known[name].length)

    def task_of(names: Sequence[str], *, packed: bool) -> Task:
        """Return a task, named by its first unfinished run; finished ones keep their places."""
        first = next(filter(is_open, names))
        label = f"{first} and {len(names) - 1} more" if len(names) > 1 else first
        members[label] = names
        own = {"members": [known[name].member for name in names], "packed": packed, **arguments}
        return Task(name=label, path=base_dir / first, work=work, arguments=own)

    packs = {name: plan.pack_of(name) if plan else () for name in known}
    units = {pack or (name,): bool(pack) for name, pack in packs.items()}
    ended = [name for name in known if not is_open(name)]
    tasks = [task_of(names, packed=pack) for names, pack in units.items() if {*names} - {*ended}]
    finished = [
        Outcome(name, path, read_status(path)["status"], "was finished before")
        for name, path in ((name, base_dir / name) for name in ended)
    ]
    while True:
        too_large = []
        for outcome in start(tasks, finished, options, base_dir, overwrite=overwrite):
            names = members.get(outcome.name)
            if names is None:
                yield outcome
            elif outcome.status != OUT_OF_MEMORY:
                yield from _run_outcomes(outcome, [n for n in names if n not in ended], known)
            elif len(names) == 1:
                yield Outcome(names[0], outcome.path, "failed", OUT_OF_MEMORY)
            else:
                too_large.append(tuple(names))
        if not too_large:
            return
        tasks, finished = [], []
        for pack in too_large:
            assert plan is not None  # or there were no packs
            plan = plan.halved(pack)
            write_plan(plan, base_dir)
            say(f"pack of {len(pack)} runs: out of memory; continuing with halves of it")
            halves = (half for half in plan.packs if set(half) <= set(pack))
            tasks += [task_of(half, packed=True) for half in halves if {*half} - {*ended}]


def _run_outcomes(
    outcome: Outcome, names: Iterable[str], known: Mapping[str, PlannedRun]
) -> Iterator[Outcome]:
    """Yield the outcome of each of the runs of a task."""
    for name in names:
        path = outcome.path.parent / name
        if has_ended(path, known[name].length):
            status = read_status(path)
            yield Outcome(name, path, status["status"], status.get("message", ""))
        else:
            yield dataclasses.replace(outcome, name=name, path=path)
