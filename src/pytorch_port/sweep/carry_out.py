"""A grid of ICL runs carried out: checked as a whole, trained, and listed in ``runs.csv``."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pytorch_port.config.runtime import Runtime
from pytorch_port.config.schema import IclConfig
from pytorch_port.data.inputs import load_inputs
from pytorch_port.sweep.grid import PackSize, SweepRun
from pytorch_port.sweep.pack import OUT_OF_MEMORY, run_pack
from pytorch_port.sweep.pack_plan import MANIFEST, PackPlan, make_plan, write_plan
from pytorch_port.sweep.runs_table import DECAYS, write_runs_csv
from pytorch_port.train.experiment import build, pack_record, run_identity, settle_engine
from pytorch_port.train.experiment import run as train
from pytorch_port.train.rows import LENGTH
from trainrig.device import choose_device
from trainrig.launch.launcher import start
from trainrig.launch.options import LaunchOptions
from trainrig.run_status import has_ended, read_status
from trainrig.runs import check_config
from trainrig.sweep import Outcome, Paced, Task, refuse_if_all_failed


def check_runs(
    runs: Sequence[SweepRun], base_dir: Path, runtime: Runtime, plan: PackPlan | None = None
) -> set[str]:
    """Check every run against the data, the device and what ``base_dir`` holds, writing nothing.

    With a plan, also whether a run was begun in a pack and shall go on alone, or the reverse.

    Returns:
        Where the runs' images come from.

    Raises:
        ValueError, KeyError: class counts that the data cannot serve, settings that the optimizer
            or the model refuses, or a run directory that holds another configuration (unless it is
            to be overwritten).
        FileNotFoundError: no images.
    """
    device = choose_device(runtime.device)
    sources = set()
    for run in runs:
        inputs = load_inputs(
            run.config, device, data_dir=runtime.data_dir, download=runtime.download
        )
        model, _ = build(run.config, inputs)
        path = base_dir / run.name
        pack = plan.pack_of(run.name) if plan else ()
        config = settle_engine(run.config, path, inputs, model, runtime, packed=bool(pack))
        if not runtime.overwrite:
            identity, _ = run_identity(path, config, inputs)
            check_config(path, identity, length=LENGTH)
            pack_record(path, pack, config, runtime)
        sources.add(inputs.describe()["image_source"])
    return sources


def execute(
    runs: Sequence[SweepRun],
    base_dir: Path,
    runtime: Runtime,
    options: LaunchOptions,
    plan: PackPlan | None = None,
) -> Iterator[Outcome]:
    """Train what is not finished yet, by the launcher of ``options``; yield each run's outcome.

    A task is one run, or one pack of the plan; a pack that runs out of memory is halved, which
    the plan in ``base_dir`` then says.
    """
    base_dir = base_dir.resolve()  # a job may start in another folder
    steps = {run.name: run.config.training_steps for run in runs}
    tasks, finished = _tasks(runs, base_dir, runtime, plan)
    while True:
        too_large = []
        packs = {task.name: _names_of(task) for task in tasks}
        done_before = {outcome.name for outcome in finished}
        for outcome in start(tasks, finished, options, base_dir, overwrite=runtime.overwrite):
            pack = [] if outcome.name in done_before else packs[outcome.name]
            if outcome.status != OUT_OF_MEMORY:
                yield from _run_outcomes(outcome, pack, base_dir, steps)
            elif len(pack) == 1:
                yield Outcome(pack[0], outcome.path, "failed", OUT_OF_MEMORY)
            else:
                too_large.append(pack)
        if not too_large:
            return
        tasks, finished = [], []
        for pack in too_large:
            assert plan is not None  # or there were no packs
            plan = plan.halved(pack)
            write_plan(plan, base_dir)
            _say(f"pack of {len(pack)} runs: out of memory; going on with halves of it")
            for part in (part for part in plan.packs if set(part) <= set(pack)):
                tasks += _pack_tasks(part, runs, base_dir, runtime)


def _tasks(
    runs: Sequence[SweepRun], base_dir: Path, runtime: Runtime, plan: PackPlan | None
) -> tuple[list[Task], list[Outcome]]:
    """Return the tasks of a sweep, and the outcomes of the runs that are finished."""
    tasks, finished, packs = [], [], []
    for run in runs:
        path, pack = base_dir / run.name, plan.pack_of(run.name) if plan else ()
        if has_ended(path, run.config.training_steps) and not runtime.overwrite:
            status = read_status(path)["status"]
            finished.append(Outcome(run.name, path, status, "was finished before"))
        elif not pack:
            arguments = {"config": run.config, "path": path, "runtime": runtime}
            tasks.append(Task(name=run.name, path=path, work=train_run, arguments=arguments))
        elif pack not in packs:
            packs.append(pack)
            tasks += _pack_tasks(pack, runs, base_dir, runtime)
    return tasks, finished


def _pack_tasks(
    pack: Sequence[str], runs: Sequence[SweepRun], base_dir: Path, runtime: Runtime
) -> list[Task]:
    """Return the task of a pack, or none if all its runs are finished.

    Its path is that of the first unfinished run; finished ones keep their place in the pack.
    """
    configs = {run.name: run.config for run in runs}
    open_ones = [
        name
        for name in pack
        if runtime.overwrite or not has_ended(base_dir / name, configs[name].training_steps)
    ]
    if not open_ones:
        return []
    members = [(configs[name], base_dir / name) for name in pack]
    arguments = {"runs": members, "runtime": runtime}
    label = f"{open_ones[0]} and {len(pack) - 1} more"
    path = base_dir / open_ones[0]
    return [Task(name=label, path=path, work=train_pack, arguments=arguments)]


def _names_of(task: Task) -> list[str]:
    """Return the runs that a task trains."""
    return [path.name for _, path in task.arguments.get("runs", [(None, task.path)])]


def _run_outcomes(
    outcome: Outcome, names: Sequence[str], base_dir: Path, steps: Mapping[str, int]
) -> Iterator[Outcome]:
    """Yield the outcome of each run of a task; ``steps`` are the lengths of all runs."""
    if len(names) < 2:
        yield dataclasses.replace(outcome, name=names[0]) if names else outcome
        return
    for name in names:
        if has_ended(base_dir / name, steps[name]):
            status = read_status(base_dir / name)
            yield Outcome(name, base_dir / name, status["status"], status.get("message", ""))
        else:
            yield dataclasses.replace(outcome, name=name, path=base_dir / name)


def train_run(config: IclConfig, path: Path, runtime: Runtime, position: int) -> str:
    """Train one run of a sweep in this process and return its status."""
    return train(config, dataclasses.replace(runtime, position=position + 1), path=path).status


def train_pack(runs: list[tuple[IclConfig, Path]], runtime: Runtime, position: int) -> str:
    """Train one pack of a sweep in this process and return its status."""
    return run_pack(runs, dataclasses.replace(runtime, position=position + 1))


def _say(text: str) -> None:
    from tqdm import tqdm

    tqdm.write(text, file=sys.stderr)


def train_grid(
    runs: Sequence[SweepRun],
    base_dir: Path,
    runtime: Runtime,
    *,
    config_path: Path,
    launch: LaunchOptions | None = None,
    pack: PackSize | None = None,
    varied: Sequence[str] = DECAYS,
) -> list[Outcome]:
    """Check, then train the grid, keeping ``runs.csv`` current in a small share of the time.

    Args:
        runs: from ``grid.plan_runs``.
        base_dir: holds the run folders and ``runs.csv``.
        runtime: see ``runtime.Runtime``.
        config_path: where the configuration came from, for ``runs.csv``.
        launch: who carries the runs out; default worker processes, one per core or GPU.
        pack: most runs trained as one program, or ``auto``: as many as the memory holds; default
            1 on a CPU or with a named engine, ``auto`` on a GPU.
        varied: keys in which the runs of ``runs.csv`` may differ to be compared, see there.

    Raises:
        ValueError, FileNotFoundError: as ``check_runs``, before anything is written.
        ValueError: all runs failed; the first one's reason.
    """
    device = choose_device(runtime.device)
    options = (launch or LaunchOptions()).resolved(device, runtime.threads)
    if pack is None:
        engines = {run.config.training.engine for run in runs}
        pack = "auto" if device.type == "cuda" and engines <= {"auto", "eager"} else 1
    plan = make_plan(runs, base_dir, runtime, pack, options.jobs or 1)
    sources = check_runs(runs, base_dir, runtime, plan)
    if not options.dry_run:
        base_dir.mkdir(parents=True, exist_ok=True)
        _keep_plan(plan, base_dir, runtime)
    outcomes = []
    table = partial(write_runs_csv, runs, base_dir, config_path, varied=varied)
    list_runs = Paced(lambda: table(passing=True))
    with _sweep_bar(len(runs), runtime.show_progress) as bar:
        if "synthetic" in sources and runtime.show_progress:
            bar.write("images: SYNTHETIC GLYPHS, procedural drawings, not Omniglot (see --source)")
        for outcome in execute(runs, base_dir, runtime, options, plan):
            outcomes.append(outcome)
            bar.update()
            if runtime.show_progress or outcome.status != "complete":
                bar.write(f"{outcome.name}: {outcome.status} {outcome.message}".rstrip())
            list_runs()
    if outcomes:
        table()
    refuse_if_all_failed(outcomes)
    return outcomes


def _keep_plan(plan: PackPlan | None, base_dir: Path, runtime: Runtime) -> None:
    """Write the plan; without one, an earlier one stays unless its runs may go on alone."""
    if plan is not None:
        write_plan(plan, base_dir)
    elif runtime.overwrite or runtime.force_engine_change:
        (base_dir / MANIFEST).unlink(missing_ok=True)


def _sweep_bar(total: int, shown: bool) -> Any:
    from tqdm import tqdm

    return tqdm(
        total=total, desc="sweep", unit="run", position=0, dynamic_ncols=True, disable=not shown
    )
