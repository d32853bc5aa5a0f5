"""A grid of ICL runs carried out: checked as a whole, trained, and listed in ``runs.csv``."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pytorch_port.config.runtime import Runtime
from pytorch_port.config.schema import IclConfig
from pytorch_port.data.inputs import load_inputs
from pytorch_port.sweep.grid import SweepRun
from pytorch_port.sweep.pack import run_pack
from pytorch_port.sweep.pack_plan import choose_size, planned
from pytorch_port.sweep.runs_table import DECAYS, write_runs_csv
from pytorch_port.train.experiment import (
    build,
    pack_record,
    run_identity,
    run_in_turns,
    settle_engine,
)
from pytorch_port.train.experiment import run as train
from pytorch_port.train.rows import LENGTH
from trainrig.cli import PackSize
from trainrig.device import choose_device
from trainrig.launch.options import LaunchOptions
from trainrig.packs import (
    PackPlan,
    execute,
    keep_plan,
    make_plan,
    or_out_of_memory,
    share_out,
)
from trainrig.run_status import RunResult, has_ended
from trainrig.runs import check_config
from trainrig.sweep import Outcome, Paced, refuse_if_all_failed
from trainrig.turns import Own, Steps, take_turns


def check_runs(
    runs: Sequence[SweepRun], base_dir: Path, runtime: Runtime, plan: PackPlan | None = None
) -> set[str]:
    """Check every run against the data, the device and what ``base_dir`` holds, writing nothing.

    With a plan, also whether a run was begun in a pack and would continue alone, or the reverse.

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
        config, _ = settle_engine(run.config, path, inputs, model, runtime, packed=bool(pack))
        if not runtime.overwrite:
            identity, _ = run_identity(path, config, inputs)
            check_config(path, identity, length=LENGTH)
            pack_record(path, pack, config, runtime)
        sources.add(inputs.describe()["image_source"])
    return sources


def train_members(
    members: Sequence[tuple[IclConfig, Path]], packed: bool, runtime: Runtime, position: int
) -> str:
    """Train one run, or the runs of a pack, in this process and return a status."""
    runtime = dataclasses.replace(runtime, position=position + 1)
    if packed:
        return or_out_of_memory(lambda: run_pack(members, runtime))
    config, path = members[0]
    return train(config, runtime, path=path).status


def train_side_by_side(
    members: Sequence[tuple[IclConfig, Path]],
    packed: bool,
    runtime: Runtime,
    most: int | None,
    position: int,
) -> str:
    """Train runs in this process, a step of each in turn, and return a status.

    Args:
        members: of equal precision, which is a setting of the process.
        packed: is not looked at: a run keeps its bits.
        runtime: of all runs.
        most: runs at a time; None: as many as the device's memory holds.
        position: line of the progress bar.
    """
    unfinished = [
        (config, path)
        for config, path in members
        if runtime.overwrite or not has_ended(path, config.training_steps)
    ]
    streams = len(unfinished) if most is None else min(most, len(unfinished))
    quiet = dataclasses.replace(runtime, show_progress=False, streams=streams)

    def beginning(config: IclConfig, path: Path) -> Callable[[Own], Steps[RunResult]]:
        return lambda own: run_in_turns(config, quiet, path, own)

    total = sum(config.training_steps for config, _ in unfinished)
    with _bar(total, runtime, position, f"{len(unfinished)} runs") as bar:
        ended = take_turns(
            [beginning(*member) for member in unfinished],
            choose_device(runtime.device),
            most=most,
            progress=bar.update,
        )
    for (_, path), result in zip(unfinished, ended, strict=True):
        if isinstance(result, Exception):
            result.add_note(str(path))
            raise result
    statuses = {result.status for result in ended if isinstance(result, RunResult)}
    return "diverged" if "diverged" in statuses else "complete"


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
        pack: most runs at a time, or ``auto``: as many as the memory holds. On a CPU they are
            trained as one program, which is not done by default. On a GPU they take turns, each
            as if alone; by default as many as its memory holds.
        varied: keys in which the runs of ``runs.csv`` may differ to be compared, see there.

    Raises:
        ValueError, FileNotFoundError: as ``check_runs``, before anything is written.
        ValueError: all runs failed; the first one's reason.
    """
    device = choose_device(runtime.device)
    options = (launch or LaunchOptions()).resolved(device, runtime.threads)
    in_turns = device.type == "cuda" and pack != 1
    base_dir = base_dir.resolve()  # a job may start in another folder
    entries, jobs = planned(runs, base_dir), options.jobs or 1
    plan = make_plan(
        entries,
        base_dir,
        1 if in_turns or pack is None else pack,
        choose=lambda: choose_size(runs, runtime, jobs),
        overwrite=runtime.overwrite,
        force=runtime.force_engine_change,
    )
    sources = check_runs(runs, base_dir, runtime, plan)
    work: Callable[..., str] = train_members
    further: dict[str, Any] = {"runtime": runtime}
    if in_turns:
        precisions = [run.config.training.precision for run in runs]
        plan = share_out(entries, precisions, jobs)
        work, further["most"] = train_side_by_side, pack if isinstance(pack, int) else None
    if not options.dry_run:
        base_dir.mkdir(parents=True, exist_ok=True)
        keep_plan(
            None if in_turns else plan,
            base_dir,
            replace=runtime.overwrite or runtime.force_engine_change,
        )
    outcomes = []
    table = partial(write_runs_csv, runs, base_dir, config_path, varied=varied)
    list_runs = Paced(lambda: table(passing=True))
    with _sweep_bar(len(runs), runtime.show_progress) as bar:
        if "synthetic" in sources and runtime.show_progress:
            bar.write("images: SYNTHETIC GLYPHS, procedural drawings, not Omniglot (see --source)")
        for outcome in execute(
            entries,
            base_dir,
            options,
            work,
            plan,
            overwrite=runtime.overwrite,
            **further,
        ):
            outcomes.append(outcome)
            bar.update()
            if runtime.show_progress or outcome.status != "complete":
                bar.write(f"{outcome.name}: {outcome.status} {outcome.message}".rstrip())
            list_runs()
    if outcomes:
        table()
    refuse_if_all_failed(outcomes)
    return outcomes


def _bar(total: int, runtime: Runtime, position: int, name: str) -> Any:
    from tqdm import tqdm

    return tqdm(
        total=total,
        desc=name,
        unit="step",
        position=position + 1,
        disable=not runtime.show_progress,
        leave=False,
        mininterval=0.5,
        dynamic_ncols=True,
    )


def _sweep_bar(total: int, shown: bool) -> Any:
    from tqdm import tqdm

    return tqdm(
        total=total, desc="sweep", unit="run", position=0, dynamic_ncols=True, disable=not shown
    )
