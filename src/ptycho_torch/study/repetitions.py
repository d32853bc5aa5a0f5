"""The error map of ``infer_ptycho.py --uncertainty``: simulated measurements, by any launcher.

Each repetition is a run directory ``repetitions/seed_{S}`` below the reconstruction that it is
about. It is short and writes no checkpoint: one that was stopped begins again.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ptycho_torch.raw_data import RawDataTorch
from ptycho_torch.recon.hybrid import as_learnt
from ptycho_torch.recon.inference import load_reconstruction, save_reconstruction
from ptycho_torch.recon.pipeline import Method, method_of
from ptycho_torch.recon.refine import RefineState
from ptycho_torch.study.cli import refine_settings
from ptycho_torch.study.inference_cli import scan_of
from ptycho_torch.study.runs_table import write_runs_csv
from ptycho_torch.study.uncertainty import expected_error, replica
from ptycho_torch.train.figures import draw_pictures
from ptycho_torch.train.inputs import EXPERIMENT, scan_hash
from trainrig.device import set_threads
from trainrig.errors import DivergedError
from trainrig.launch.launcher import carry_out
from trainrig.launch.options import LaunchOptions
from trainrig.runs import check_config, describe_environment, open_run
from trainrig.sweep import Task


def repetition_tasks(
    args: argparse.Namespace, method: Method, scan: RawDataTorch, threads: int
) -> list[Task]:
    """Return one task per simulated measurement, after a look at what is there already.

    Args:
        args: of ``infer_ptycho.py``.
        method: that they describe.
        scan: the measurement.
        threads: torch threads of each.

    Raises:
        ValueError: fewer than two, or repetitions of another method, seed or scan in the folder.
    """
    if args.uncertainty < 2:
        raise ValueError(f"--uncertainty: {args.uncertainty} repetitions; give 2 or more")
    places = ("test_data", "output_dir", "model_path")
    named = {key: path.resolve() for key in places if (path := getattr(args, key)) is not None}
    args = argparse.Namespace(**{**vars(args), **named})  # a job may start in another folder
    tasks = []
    for seed in range(args.seed, args.seed + args.uncertainty):
        path = args.output_dir / "repetitions" / f"seed_{seed}"
        identity = {**_identity(args, method, scan), "seed": seed}
        check_config(path, identity, f"remove {path.parent}")
        work = {"args": args, "seed": seed, "path": path, "identity": identity, "threads": threads}
        tasks.append(Task(name=path.name, path=path, work=repeat, arguments=work))
    return tasks


def _identity(args: argparse.Namespace, method: Method, scan: RawDataTorch) -> dict[str, Any]:
    digest = hashlib.sha256()
    for value in method.model.state_dict().values() if method.model is not None else ():
        digest.update(value.cpu().numpy().tobytes())
    return {
        "experiment": EXPERIMENT,
        "scan_sha256": scan_hash(scan),
        "network_sha256": None if method.model is None else digest.hexdigest()[:16],
        "refinement": method.describe(),
        "object_seed": args.seed,  # of the reconstruction that is simulated
        **{key: getattr(args, key) for key in ("n_images", "middle_trim", "stream")},
    }


def repeat(
    args: argparse.Namespace,
    seed: int,
    path: Path,
    identity: Mapping[str, Any],
    threads: int,
    position: int,
) -> str:
    """Simulate a measurement of the reconstruction, reconstruct it, and return the final status."""
    del position  # of a progress bar, which this does not draw
    threads, settings = set_threads(threads), refine_settings(args)
    method = method_of(args, settings)
    scan = scan_of(args)
    environment = describe_environment("ptycho_torch", device=method.device, threads=threads)
    with open_run(path, identity, environment) as directory:
        found = load_reconstruction(args.output_dir / "reconstruction.npz")
        if settings.epochs:
            scan = as_learnt(scan, args.output_dir / "refinement.npz")
        metrics: dict[str, Any] = {}

        def note(state: RefineState) -> None:
            metrics["refinement"] = {"loss": state.loss}
            directory.set_status(
                "running", epoch=state.epoch, epochs=settings.epochs, metrics=metrics
            )
            if directory.stop.due():
                raise directory.stop.interruption(str(path))

        directory.set_status("running", epoch=0, epochs=settings.epochs)
        try:
            drawn = replica(scan, found, seed)
            network = method.network(drawn, seed, found.grid)
            repeated, _ = method.refine(drawn, network, seed, found.grid, on_epoch=note)
            save_reconstruction(repeated, path / "reconstruction.npz", scan.coords)
        except DivergedError as error:
            directory.set_status("diverged", message=str(error))
            return "diverged"
        except BaseException as error:
            directory.record_stop(error)
            raise
        ended = {"epoch": settings.epochs, "epochs": settings.epochs, "metrics": metrics}
        directory.set_status("complete", **ended)
    return "complete"


def estimate_uncertainty(
    tasks: Sequence[Task],
    options: LaunchOptions,
    scan: RawDataTorch,
    out: Path,
    phase_limits: dict[str, float | None],
) -> Iterator[str]:
    """Carry the repetitions out and add their error map to ``reconstruction.npz``; yields lines.

    With ``options.dry_run`` the plan is printed instead.

    Args:
        tasks: of ``repetition_tasks``.
        options: who carries them out.
        scan: the measurement.
        out: the folder of the reconstruction.
        phase_limits: display range of the phase.

    Raises:
        ValueError: a repetition has not come to its end.
    """
    folder, unfinished = tasks[0].path.parent, []
    for outcome in carry_out(tasks, options, folder):
        write_runs_csv(folder, {task.path.name for task in tasks})
        yield f"{outcome.name}: {outcome.status} {outcome.message}".rstrip()
        if outcome.status != "complete":
            unfinished.append(outcome)
    if options.dry_run:
        return
    if unfinished:
        first = unfinished[0]
        raise ValueError(f"{first.path}: {first.status} ({first.message}); no error map is written")
    found = load_reconstruction(out / "reconstruction.npz")
    drawn = [load_reconstruction(task.path / "reconstruction.npz").object for task in tasks]
    found.uncertainty = expected_error(drawn, found)
    save_reconstruction(found, out / "reconstruction.npz", scan.coords)
    draw_pictures(found.object, found.covered, found.uncertainty, out, phase_limits)
    yield f"{folder / 'runs.csv'} {out / 'reconstructed_uncertainty.png'}"
