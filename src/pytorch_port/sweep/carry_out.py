"""A grid of ICL runs carried out: checked as a whole, trained, and listed in ``runs.csv``."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
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
from pytorch_port.train.experiment import build, pack_record, run_identity, settle_engine
from pytorch_port.train.experiment import run as train
from pytorch_port.train.rows import LENGTH
from trainrig.cli import PackSize
from trainrig.device import choose_device
from trainrig.launch.options import LaunchOptions
from trainrig.packs import PackPlan, execute, keep_plan, make_plan, or_out_of_memory
from trainrig.runs import check_config
from trainrig.sweep import Outcome, Paced, refuse_if_all_failed


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
    base_dir = base_dir.resolve()  # a job may start in another folder
    entries, jobs = planned(runs, base_dir), options.jobs or 1
    plan = make_plan(
        entries,
        base_dir,
        pack,
        choose=lambda: choose_size(runs, runtime, jobs),
        overwrite=runtime.overwrite,
        force=runtime.force_engine_change,
    )
    sources = check_runs(runs, base_dir, runtime, plan)
    if not options.dry_run:
        base_dir.mkdir(parents=True, exist_ok=True)
        keep_plan(plan, base_dir, anew=runtime.overwrite or runtime.force_engine_change)
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
            train_members,
            plan,
            overwrite=runtime.overwrite,
            runtime=runtime,
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


def _sweep_bar(total: int, shown: bool) -> Any:
    from tqdm import tqdm

    return tqdm(
        total=total, desc="sweep", unit="run", position=0, dynamic_ncols=True, disable=not shown
    )
