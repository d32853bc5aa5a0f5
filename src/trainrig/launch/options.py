"""The launcher's flags, which every sweep shares. Nothing here imports torch."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    import torch

Launcher = Literal["local", "slurm", "ray"]
#: sbatch options with a flag of their own: name, type, help. Any other goes through ``--slurm``.
SLURM_FLAGS = (
    ("partition", str, "(the cluster's default)"),
    ("account", str, "account to charge"),
    ("qos", str, "quality of service"),
    ("constraint", str, "features that the nodes must have"),
    ("time", int, "minutes of one job (60); a run that needs more is requeued and resumes"),
    ("mem", str, "memory of one job, e.g. 8GB"),
    ("gpus_per_node", int, "GPUs of one job (0)"),
    ("cpus_per_task", int, "cores of one job (1)"),
    ("array_parallelism", int, "jobs at a time (256)"),
    ("signal_delay_s", int, "seconds between SIGUSR1 and the end of the time (90)"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class LaunchOptions:
    """Who carries out a sweep's runs, and with what.

    Attributes:
        launcher: ``local``, ``slurm`` or ``ray``.
        jobs: local runs side by side; None lets ``resolved`` choose.
        gpus: GPUs that local workers are spread over; empty leaves the choice to each run.
        gpus_per_run: share of a GPU that one run needs.
        attach: follow jobs launched before.
        dry_run: print the plan and start nothing.
        slurm: options of sbatch, by submitit's names.
        ray_address: of an existing cluster; None starts one here.
        retries: how often Ray runs a task again after its worker died.
    """

    launcher: Launcher = "local"
    jobs: int | None = None
    gpus: tuple[str, ...] = ()
    gpus_per_run: float = 1.0
    attach: bool = False
    dry_run: bool = False
    slurm: dict[str, Any] = field(default_factory=dict)
    ray_address: str | None = None
    retries: int = 10

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.launcher not in get_args(Launcher):
            accepted = ", ".join(get_args(Launcher))
            raise ValueError(f"--launcher {self.launcher}: unknown; accepted: {accepted}")
        if self.jobs is not None and self.jobs < 1:
            raise ValueError(f"--jobs {self.jobs}: must be at least 1")
        if not 0 < self.gpus_per_run <= 64:
            raise ValueError(f"--gpus-per-run {self.gpus_per_run}: must be above 0, at most 64")
        if self.retries < 0:
            raise ValueError(f"--retries {self.retries}: must be 0 or more")
        if self.attach and self.launcher == "local":
            raise ValueError(
                "--attach: local runs end with their launcher; the same command resumes them"
            )

    def resolved(self, device: torch.device, threads: int | None) -> LaunchOptions:
        """Return the options with ``jobs`` and ``gpus`` for runs on ``device``.

        Args:
            device: the CPU, one GPU by its number, or ``cuda`` for any.
            threads: torch threads of one run.
        """
        from trainrig.device import core_count, visible_gpus

        if device.type == "cpu":
            return replace(self, jobs=self.jobs or max(1, core_count() // (threads or 1)))
        gpus = visible_gpus() if device.index is None else ()
        jobs = self.jobs or max(1, math.floor(max(len(gpus), 1) / self.gpus_per_run))
        return replace(self, jobs=jobs, gpus=tuple(gpus))


def add_launch_flags(
    parser: argparse.ArgumentParser, title: str = "where the runs are carried out"
) -> None:
    """Add ``--jobs``, ``--launcher`` and what belongs to each launcher."""
    group = parser.add_argument_group(title)
    group.add_argument("--launcher", choices=get_args(Launcher), default="local", help="(local)")
    group.add_argument(
        "--jobs", type=int, help="local runs side by side (CPU: one per core; CUDA: one per GPU)"
    )
    group.add_argument(
        "--gpus-per-run", type=float, default=1.0, help="share of a GPU for one run (1)"
    )
    group.add_argument("--dry-run", action="store_true", help="print the plan, start nothing")
    group.add_argument(
        "--attach", action="store_true", help="follow the jobs of an earlier launch (slurm, ray)"
    )
    for name, kind, text in SLURM_FLAGS:
        flag = f"--slurm-{name.replace('_', '-')}"
        group.add_argument(flag, type=kind, metavar=kind.__name__.upper(), help=text)
    group.add_argument(
        "--slurm", action="append", metavar="KEY=VALUE", help="any other long option of sbatch"
    )
    group.add_argument("--ray-address", help="existing Ray cluster (starts one here)")
    group.add_argument(
        "--retries", type=int, default=10, help="Ray: new tries after a worker died (10)"
    )


def launch_options(arguments: argparse.Namespace) -> LaunchOptions:
    """Return what the flags say.

    Raises:
        ValueError: a value out of range, or a ``--slurm`` item that is no ``KEY=VALUE``.
    """
    named = {name: getattr(arguments, f"slurm_{name}") for name, *_ in SLURM_FLAGS}
    slurm = {name: value for name, value in named.items() if value is not None}
    return LaunchOptions(
        launcher=arguments.launcher,
        jobs=arguments.jobs,
        gpus_per_run=arguments.gpus_per_run,
        attach=arguments.attach,
        dry_run=arguments.dry_run,
        slurm=slurm | _additional(arguments.slurm or []),
        ray_address=arguments.ray_address,
        retries=arguments.retries,
    )


def _additional(items: Sequence[str]) -> dict[str, Any]:
    pairs = {}
    for item in items:
        key, equals, value = item.partition("=")
        if not equals or not key:
            raise ValueError(f"--slurm {item}: KEY=VALUE is expected, e.g. --slurm exclude=node7")
        pairs[key] = value
    return {"additional_parameters": pairs} if pairs else {}
