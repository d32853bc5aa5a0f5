"""One ptychography training from a configuration to a reconstruction: ``run(config)``."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ptycho_torch.config.canonical import TrainingConfig
from ptycho_torch.config.execution import ExecutionConfig
from ptycho_torch.raw_data import RawDataTorch
from ptycho_torch.recon.pipeline import Method
from ptycho_torch.recon.refine import RefineSettings
from ptycho_torch.scan.npz_format import read_arrays
from ptycho_torch.train.callbacks import check_epochs, newest_checkpoint
from ptycho_torch.train.report import save_outputs, write_config
from ptycho_torch.train.run_identity import check_identity, identity_of
from ptycho_torch.train.workflows import (
    build_model,
    check_inputs,
    preparation_of,
    run_cdi_example_with_backend,
    training_part,
)
from trainrig.device import set_precision
from trainrig.errors import DivergedError
from trainrig.processes import process_rank
from trainrig.run_status import RunResult, read_result, read_status
from trainrig.runs import RunDirectory, check_config, locked, naming_lost_loaders, remove_run
from trainrig.stopping import Interruption, StopRequest

SPLITS = ("train", "val")


def run(
    config: TrainingConfig,
    execution: ExecutionConfig | None = None,
    *,
    scan: RawDataTorch | None = None,
    refinement: Method | None = None,
    stitch: bool = True,
    overwrite: bool = False,
    say: Callable[[str], None] | None = None,
) -> RunResult:
    """Train on ``config.train_data_file``, reconstruct, and write both below ``config.output_dir``.

    Of several processes, the first does so and the others train on their shares of its batches.

    Args:
        config: the training; ``backend`` is ``pytorch`` for this package's own.
        execution: hardware, loaders, logging, checkpoints.
        scan: the training scan, where it has been read already.
        refinement: iterations after the network; none where None.
        stitch: write a reconstruction, of ``config.test_data_file`` if there is one.
        overwrite: remove the training in the folder first; without, an unfinished one is
            continued, a finished one is left as it is unless more epochs or another refinement are
            asked for.
        say: receives a line on each part that is done.

    Returns:
        ``path`` is the output folder; ``step`` counts epochs; ``metrics`` holds the last training
        and validation loss, and the network's ``patterns_per_s``. ``diverged`` is a training whose
        loss became infinite or NaN. A process that followed another has no ``path`` and wrote
        nothing.

    Raises:
        ValueError: a setting out of range, a scan that does not fit it, another process at work in
            the folder, or another training there.
        FileNotFoundError: no scan.
        BackendMissingError: the backend's package is not installed.
    """
    execution, say = execution or ExecutionConfig(), say or _silent
    set_precision("fp32")  # bf16 is Lightning's autocast
    if scan is None:
        if config.train_data_file is None:
            raise ValueError("TrainingConfig.train_data_file: missing; give a canonical NPZ scan")
        scan = RawDataTorch.from_file(config.train_data_file)
    test = None if config.test_data_file is None else RawDataTorch.from_file(config.test_data_file)
    check_inputs(scan, test, config, execution.overlap_frames)
    if config.backend == "pytorch":
        from ptycho_torch.stepping import check_optimizer

        check_optimizer(config, lr=execution.learning_rate, accum_steps=execution.accum_steps)
    method = refinement or Method(RefineSettings(epochs=0))
    wanted = method if stitch else None
    parts = (config, execution, scan, test, wanted, say)
    if process_rank() > 0:
        return _follow(*parts)
    out = Path(config.output_dir)
    out.mkdir(parents=True, exist_ok=True)
    with locked(out):
        if overwrite or config.backend != "pytorch":  # others' trainings cannot be continued
            remove_run(out)
        else:
            _check_begun(config, execution, scan, test)
            if is_finished(out, config, wanted):
                say(f"{out}: was finished before; --overwrite repeats it")
                return read_result(out)
        write_config(out / "config.yaml", config, execution)
        directory = RunDirectory(out, StopRequest())
        directory.set_status("running", epochs=config.nepochs)
        try:
            with naming_lost_loaders():
                result = _train_and_reconstruct(*parts)
        except DivergedError as error:
            directory.set_status("diverged", message=str(error))
            return read_result(out)
        except BaseException as error:
            directory.record_stop(error)
            raise
        timeless = {split: v for split, v in result.metrics.items() if split != "network"}
        ended = {"epoch": result.step, "epochs": config.nepochs, "metrics": timeless}
        if wanted is not None:
            ended["refinement"] = wanted.describe()
        directory.set_status("complete", **ended)
        return result


def run_identity(
    config: TrainingConfig,
    execution: ExecutionConfig,
    scan: RawDataTorch,
    test: RawDataTorch | None,
) -> dict[str, Any]:
    """Return what ``config.json`` of this run holds; reads and writes no file."""
    part = training_part(config, scan)
    model = build_model(config, execution)
    return identity_of(model, part, execution, preparation_of(config, part), test)


def _check_begun(
    config: TrainingConfig,
    execution: ExecutionConfig,
    scan: RawDataTorch,
    test: RawDataTorch | None,
) -> None:
    """Refuse to continue a training that was begun otherwise, or has had more epochs."""
    out = Path(config.output_dir)
    # The training that follows, or the process that leads, names the damaged ones.
    checkpoint = newest_checkpoint(out / "checkpoints")[0]
    if checkpoint is None and not (out / "config.json").is_file():
        return
    identity = run_identity(config, execution, scan, test)
    if checkpoint is None or is_finished(out, config, None):
        check_config(out, identity)
    else:
        check_identity(out, identity, execution)
        check_epochs(checkpoint, config.nepochs)


def is_finished(path: Path, config: TrainingConfig, refinement: Method | None) -> bool:
    """Say whether nothing is left to do: more epochs, or another refinement, would be.

    Args:
        path: the training's folder.
        config: how many epochs are wanted.
        refinement: of the reconstruction that is wanted; None for none.
    """
    status = read_status(path)
    if status["status"] == "diverged":
        return True
    whole = status["status"] == "complete" and status.get("epochs") == config.nepochs
    if refinement is None:
        return whole
    made = status.get("refinement") == refinement.describe()
    return whole and made and (path / "reconstruction.npz").is_file()


def _follow(*parts: Any) -> RunResult:
    """Train in a process that follows another, which keeps the folder and speaks for both."""
    config, execution, scan, test, _, _ = parts
    # torchrun starts this process beside the first one, Lightning after the check.
    if config.backend == "pytorch" and "RANK" in os.environ:
        # Or it would wait for a process 0 that is refused.
        _check_begun(config, execution, scan, test)
    options: dict[str, Any] = {"do_stitching": False}
    if config.backend == "pytorch":
        options |= {"execution_config": execution, "overrides": {"resume": True}}
    status, losses = "complete", []
    try:
        results = run_cdi_example_with_backend(scan, test, config, **options)[2]
        losses = results["history"]["loss"]
    except Interruption:
        status = "interrupted"
    except DivergedError:
        status = "diverged"
    return RunResult(path=None, status=status, step=len(losses), counts="epoch")


def _train_and_reconstruct(
    config: TrainingConfig,
    execution: ExecutionConfig,
    scan: RawDataTorch,
    test: RawDataTorch | None,
    method: Method | None,
    say: Callable[[str], None],
) -> RunResult:
    """Do what ``run`` promises; without a method no reconstruction is written."""
    out = Path(config.output_dir)
    options: dict[str, Any] = {"do_stitching": method is not None, "M": 20 if scan.N == 64 else 32}
    if config.backend == "pytorch":
        options |= {"execution_config": execution, "overrides": {"resume": True}}
    results = run_cdi_example_with_backend(scan, test, config, **options)[2]
    history = results["history"]
    epochs = len(history["train_loss"])
    final = f", loss {history['train_loss'][-1]:.5f}" if epochs else ""
    say(f"{out}: trained {epochs} epochs on {len(scan)} frames{final}")
    metrics = {
        split: {"loss": values[-1]} for split in SPLITS if (values := history.get(f"{split}_loss"))
    }
    if method is not None and "reconstruction" in results:
        found = results["reconstruction"]
        say(f"network: {found.patterns_per_s:.0f} patterns/s")
        metrics["network"] = {"patterns_per_s": found.patterns_per_s}
        for line in save_outputs(
            method,
            test or scan,
            found,
            out,
            seed=execution.seed,
            preview_every_epochs=execution.preview_every_epochs,
        ):
            say(line)
        if method.settings.epochs:
            losses = read_arrays(out / "refinement.npz")["losses"]
            metrics["refinement"] = {"loss": float(losses[-1])}
    return RunResult(path=out, status="complete", step=epochs, counts="epoch", metrics=metrics)


def _silent(line: str) -> None:
    """Swallow a line."""
