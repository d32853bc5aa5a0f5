"""Runs of a search by any launcher: worker processes, SLURM or Ray; their results are files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from deepobs.pytorch import config
from deepobs.pytorch.runners.pack import run_pack
from deepobs.pytorch.runners.results import find_result
from deepobs.pytorch.runners.runner import PTRunner
from trainrig.device import set_threads
from trainrig.launch.launcher import start
from trainrig.launch.options import LaunchOptions
from trainrig.runs import FINAL
from trainrig.sweep import Outcome, Task

Settings = Sequence[Mapping[str, Any]]


def launch_settings(
    runner: PTRunner,
    testproblem: str,
    settings: Settings,
    options: LaunchOptions,
    *,
    seeds: Sequence[int],
    output_dir: str | Path,
    pack: int = 1,
    **run_arguments: Any,
) -> None:
    """Carry out every setting with every seed; with ``dry_run``, print the plan.

    Args:
        runner: of the runs.
        testproblem: its name.
        settings: hyperparameters of each.
        options: who carries the runs out, ``resolved``.
        seeds: random seeds of every setting.
        output_dir: root of the result files, on a file system that all jobs share.
        pack: settings trained in one program.
        run_arguments: of the runner; runs with a result are left alone, unless ``skip_if_exists``
            is False.

    Raises:
        ValueError: a run failed, or the launcher refuses.
    """
    output_dir = Path(output_dir).resolve()  # a job may start in another folder
    skip = run_arguments.get("skip_if_exists", True)
    since_ns = run_arguments.get("since_ns", 0)
    process_only = ("data_dir", "skip_if_exists", "since_ns")
    deciding = {k: v for k, v in run_arguments.items() if k not in process_only}
    process = {"threads": torch.get_num_threads(), "settings": config.snapshot()}
    tasks, finished = [], []
    for seed in seeds:
        arguments = {**run_arguments, "random_seed": seed, "output_dir": output_dir}
        for first in range(0, len(settings), pack):
            members = settings[first : first + pack]
            chosen = [
                runner.make_settings(testproblem, given, random_seed=seed, **deciding)
                for given in members
            ]
            name = f"{chosen[0].run_name} seed {seed}"
            name += f" and {len(members) - 1} more" if len(members) > 1 else ""
            path = runner.run_folder(chosen[0], output_dir) / f".random_seed__{seed}"
            if skip and all(find_result(one, output_dir, since_ns) for one in chosen):
                finished.append(Outcome(name, path, "complete", "was finished before"))
            else:
                work = {"members": members, "arguments": arguments, "packed": pack > 1}
                work |= {"runner": runner, "testproblem": testproblem, "process": process}
                tasks.append(Task(name=name, path=path, work=run_members, arguments=work))
    base = output_dir / testproblem / runner.optimizer_name
    for outcome in start(tasks, finished, options, base):
        if outcome.status not in FINAL:
            raise ValueError(f"{outcome.name}: {outcome.status}: {outcome.message}")


def run_members(
    members: Settings,
    arguments: Mapping[str, Any],
    *,
    packed: bool,
    runner: PTRunner,
    testproblem: str,
    process: Mapping[str, Any],
    position: int,
) -> str:
    """Run one setting, or the settings of a pack, in this process; diverged runs are results."""
    del position  # of a progress bar, which these runs do not draw
    set_threads(process["threads"])
    config.restore(process["settings"])
    if packed:
        run_pack(runner, testproblem, members, **arguments)
    else:
        quiet = {"verbose": False, "keep_checkpoint": False, **arguments}
        runner.run(testproblem, members[0], **quiet)
    return "complete"
