"""One ptychography training from a configuration to a reconstruction: ``run(config)``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ptycho_torch.config.canonical import TrainingConfig
from ptycho_torch.config.execution import ExecutionConfig
from ptycho_torch.raw_data import RawDataTorch
from ptycho_torch.recon.inference import Reconstruction
from ptycho_torch.recon.pipeline import Method
from ptycho_torch.recon.refine import RefineSettings
from ptycho_torch.scan.npz_format import read_arrays
from ptycho_torch.train.inputs import EXPERIMENT, identity_of
from ptycho_torch.train.report import config_text, save_outputs
from ptycho_torch.train.train import follow_training
from ptycho_torch.train.workflows import (
    TrainedCdi,
    build_model,
    check_inputs,
    run_cdi_example_with_backend,
    trained_cdi,
    training_data,
)
from trainrig.config import InitConfig
from trainrig.errors import DivergedError
from trainrig.files import write_atomically
from trainrig.processes import process_rank
from trainrig.run_status import RunResult, read_result, read_status
from trainrig.runs import describe_environment, open_run


def run(
    config: TrainingConfig,
    execution: ExecutionConfig | None = None,
    *,
    scan: RawDataTorch | None = None,
    refinement: Method | None = None,
    stitch: bool = True,
    overwrite: bool = False,
    init: InitConfig | None = None,
    say: Callable[[str], None] = lambda line: None,
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
        init: another run that the training begins from.
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
    execution = execution or ExecutionConfig()
    if scan is None:
        if config.train_data_file is None:
            raise ValueError("TrainingConfig.train_data_file: missing; give a canonical NPZ scan")
        scan = RawDataTorch.from_file(config.train_data_file)
    test = None if config.test_data_file is None else RawDataTorch.from_file(config.test_data_file)
    check_inputs(scan, test, config, execution.overlap_frames)
    method = (refinement or Method(RefineSettings(epochs=0))) if stitch else None
    out = Path(config.output_dir)
    if config.backend != "pytorch":
        return _run_elsewhere(config, execution, scan, test, method, say)
    if process_rank() > 0:
        data = training_data(config, scan, test)
        follow_training(build_model(config, execution), data, execution)
        return RunResult(path=None, status="complete", step=config.nepochs, counts="epoch")
    network: dict[str, float] = {}
    try:
        texts = {"config.yaml": config_text(config, execution)}
        options = {"overwrite": overwrite, "init": init, "texts": texts}
        with trained_cdi(scan, test, config, execution, **options) as cdi:
            if cdi.record.finished and is_finished(out, config, method):
                say(f"{out}: was finished before; --overwrite repeats it")
            else:
                network = _reconstruct(cdi, execution, method, say)
    except DivergedError:
        if read_status(out)["status"] != "diverged":  # a refinement, after a finished training
            raise
    result = read_result(out)
    metrics = dict(result.metrics) | ({"network": network} if network else {})
    return replace(result, metrics=metrics)


def run_identity(
    config: TrainingConfig,
    execution: ExecutionConfig,
    scan: RawDataTorch,
    test: RawDataTorch | None,
) -> dict[str, Any]:
    """Return what ``config.json`` of this run holds; reads and writes no file."""
    data = training_data(config, scan, test)
    return identity_of(build_model(config, execution), data, execution)


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


def _reconstruct(
    cdi: TrainedCdi, execution: ExecutionConfig, method: Method | None, say: Callable[[str], None]
) -> dict[str, float]:
    """Write the bundle and, with a method, the reconstruction; return the network's figures."""
    record, history = cdi.record, cdi.history
    out = record.directory.path
    results = cdi.finish(None if method is None else 20 if cdi.scan.N == 64 else 32)
    frames, losses = len(cdi.scan), history.train_loss
    say(f"{out}: trained {len(losses)} epochs on {frames} frames, loss {losses[-1]:.5f}")
    found: Reconstruction | None = results.get("reconstruction")
    if method is not None and found is not None:
        say(f"network: {found.patterns_per_s:.0f} patterns/s")
        for line in save_outputs(
            method,
            cdi.held or cdi.scan,
            found,
            out,
            seed=execution.seed,
            preview_every_epochs=execution.preview_every_epochs,
            stop=record.directory.stop,
        ):
            say(line)
        record.notes["refinement"] = method.describe()
        if method.settings.epochs:
            last = read_arrays(out / "refinement.npz")["losses"][-1]
            record.latest["refinement"] = {"loss": float(last)}
    if record.finished:  # its training, before
        status = record.directory.status()
        metrics = status["metrics"] | record.latest
        record.directory.set_status(**{**status, **record.notes, "metrics": metrics})
    return {} if found is None else {"patterns_per_s": found.patterns_per_s}


def _run_elsewhere(
    config: TrainingConfig,
    execution: ExecutionConfig,
    scan: RawDataTorch,
    test: RawDataTorch | None,
    method: Method | None,
    say: Callable[[str], None],
) -> RunResult:
    """Let another backend train and stitch; it always begins again."""
    out = Path(config.output_dir)
    environment = describe_environment("ptycho_torch")
    identity = {"experiment": EXPERIMENT, "backend": config.backend}
    with open_run(out, identity, environment, overwrite=True) as directory:
        write_atomically(out / "config.yaml", config_text(config, execution))
        directory.set_status("running", epochs=config.nepochs)
        options = {"do_stitching": method is not None, "M": 20 if scan.N == 64 else 32}
        try:
            history = run_cdi_example_with_backend(scan, test, config, **options)[2]["history"]
        except BaseException as error:
            directory.record_stop(error)
            raise
        losses = history["train_loss"]
        say(f"{out}: trained {len(losses)} epochs on {len(scan)} frames")
        metrics = {"train": {"loss": losses[-1]}} if losses else {}
        directory.set_status("complete", epoch=len(losses), epochs=config.nepochs, metrics=metrics)
    return read_result(out)
