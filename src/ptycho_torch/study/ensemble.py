"""One scan, several trainings that differ in their seeds, by any launcher; their mean and spread.

A seed decides initial weights, groups, their order and the draws of the refinement. Each member is
an ordinary training folder ``seed_{S}``; the mean of their objects is the result, and their
standard deviation per pixel its uncertainty. It sees how much of a result is due to chance in the
training, not the noise of the frames, which all members share.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ptycho_torch.config.canonical import TrainingConfig
from ptycho_torch.config.execution import ExecutionConfig
from ptycho_torch.raw_data import RawDataTorch
from ptycho_torch.recon.inference import Reconstruction, load_reconstruction, save_reconstruction
from ptycho_torch.recon.pipeline import Method
from ptycho_torch.scan.npz_format import read_arrays
from ptycho_torch.study.cli import training_scan
from ptycho_torch.study.runs_table import comparable
from ptycho_torch.study.uncertainty import mean_and_spread
from ptycho_torch.train.experiment import is_finished, run, run_identity
from ptycho_torch.train.figures import draw_pictures
from ptycho_torch.train.inputs import length_key
from ptycho_torch.train.workflows import check_inputs
from trainrig.device import set_threads
from trainrig.launch.launcher import start
from trainrig.launch.options import LaunchOptions
from trainrig.run_status import read_status
from trainrig.runs import check_config
from trainrig.summaries import names_in, summary_lock
from trainrig.sweep import Outcome, Task

#: What ``combine`` writes.
COMBINED = (
    "reconstruction.npz",
    *(f"reconstructed_{what}.png" for what in ("amplitude", "phase", "uncertainty")),
)


def members_of(
    config: TrainingConfig, execution: ExecutionConfig, seeds: Sequence[int]
) -> list[tuple[TrainingConfig, ExecutionConfig]]:
    """Return the configurations of an ensemble's members.

    Raises:
        ValueError: fewer than two seeds, one given twice, or several devices for a member.
    """
    if execution.devices != 1:
        raise ValueError(
            f"--devices {execution.devices}: a member of an ensemble is trained in one process; "
            "leave it out, and give --jobs to train several members at once"
        )
    if len(seeds) < 2 or len(set(seeds)) < len(seeds):
        given = " ".join(map(str, seeds))
        raise ValueError(f"--seeds {given}: give two or more different values")
    folder = Path(config.output_dir).resolve()  # a job may start in another folder
    files = ("train_data_file", "test_data_file")
    named = {key: path.resolve() for key in files if (path := getattr(config, key)) is not None}
    return [
        (
            replace(config, output_dir=folder / f"seed_{seed}", **named),
            replace(execution, seed=seed),
        )
        for seed in seeds
    ]


def under_their_names(
    members: Sequence[tuple[TrainingConfig, ExecutionConfig]], scan: RawDataTorch
) -> list[tuple[TrainingConfig, ExecutionConfig]]:
    """Return the members, each with the folder that holds it now: one may have been renamed."""
    test = _test_scan(members[0][0])
    identities = {}
    for config, execution in members:
        check_inputs(scan, test, config, execution.overlap_frames)
        identities[Path(config.output_dir).name] = run_identity(config, execution, scan, test)
    names = names_in(Path(members[0][0].output_dir).parent, identities)
    return [
        (replace(config, output_dir=path.parent / names[path.name]), execution)
        for config, execution in members
        for path in [Path(config.output_dir)]
    ]


def _test_scan(config: TrainingConfig) -> RawDataTorch | None:
    file = config.test_data_file
    return None if file is None else RawDataTorch.from_file(file)


def execute(
    members: Sequence[tuple[TrainingConfig, ExecutionConfig]],
    scan: RawDataTorch,
    refinement: Method,
    options: LaunchOptions,
    **process: Any,
) -> Iterator[Outcome]:
    """Train and reconstruct what is not finished yet, and yield each outcome.

    Args:
        members: of ``members_of``.
        scan: the training scan.
        refinement: of each member's object.
        options: who carries the members out.
        process: ``threads``, ``mapped`` and ``overwrite`` of each member.

    Raises:
        ValueError: a setting out of range, or a member in the folder of another configuration.
    """
    tasks, finished = [], []
    overwrite = process.get("overwrite", False)
    test = _test_scan(members[0][0])
    for config, execution in members:
        check_inputs(scan, test, config, execution.overlap_frames)
        path = Path(config.output_dir)
        if not overwrite:
            identity = run_identity(config, execution, scan, test)
            check_config(path, identity, length=length_key(config))
        if is_finished(path, config, refinement) and not overwrite:
            status = read_status(path)["status"]
            finished.append(Outcome(path.name, path, status, "was finished before"))
        else:
            work = {"config": config, "execution": execution, "refinement": refinement, **process}
            tasks.append(Task(name=path.name, path=path, work=train_member, arguments=work))
    folder = Path(members[0][0].output_dir).parent
    if not (options.dry_run or options.attach):  # or what the members were would outlive them
        for name in COMBINED:
            (folder / name).unlink(missing_ok=True)
    yield from start(tasks, finished, options, folder, overwrite=overwrite)


def train_member(
    config: TrainingConfig,
    execution: ExecutionConfig,
    refinement: Method,
    *,
    threads: int | None = None,
    mapped: bool = False,
    overwrite: bool = False,
    position: int = 0,
) -> str:
    """Train and reconstruct one member in this process and return its final status."""
    del position  # of a progress bar, which a member does not draw
    set_threads(threads)
    assert config.train_data_file is not None  # checked before
    scan = training_scan(config.train_data_file, mapped=mapped)
    return run(config, execution, scan=scan, refinement=refinement, overwrite=overwrite).status


def combine_folder(folder: Path, asked: Collection[str]) -> list[str]:
    """Write mean and spread of all complete members of ``folder`` that differ in their seeds alone.

    Args:
        folder: of the ensemble.
        asked: names of the members of this call; those of earlier calls join them.

    Returns:
        The names of the members, none where fewer than two are complete.
    """
    with summary_lock(folder):
        names = comparable(folder, asked)
        return [] if combine(folder, names) is None else names


def combine(folder: Path, names: Sequence[str]) -> Reconstruction | None:
    """Write mean and spread of the complete members' objects; None where fewer than two are."""
    paths = [folder / name for name in names if read_status(folder / name)["status"] == "complete"]
    if len(paths) < 2:
        return None
    found = [load_reconstruction(path / "reconstruction.npz") for path in paths]
    covered = np.logical_and.reduce([one.covered for one in found])
    mean, spread = mean_and_spread([one.object for one in found], covered)
    whole = Reconstruction(mean, found[0].grid, covered, 0.0, spread)
    first = read_arrays(paths[0] / "reconstruction.npz")
    coords = np.stack([first["xcoords"], first["ycoords"]], axis=1)
    save_reconstruction(whole, folder / "reconstruction.npz", coords)
    draw_pictures(mean, covered, spread, folder)
    return whole
