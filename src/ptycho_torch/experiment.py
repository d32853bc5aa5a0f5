"""One ptychography training from a configuration to a reconstruction: ``run(config)``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ptycho_torch.canonical_config import TrainingConfig
from ptycho_torch.execution import ExecutionConfig
from ptycho_torch.pipeline import Method
from ptycho_torch.raw_data import RawDataTorch
from ptycho_torch.refine import RefineSettings
from ptycho_torch.report import save_outputs, write_config
from ptycho_torch.workflows import check_inputs, run_cdi_example_with_backend
from trainrig.processes import process_rank
from trainrig.run_status import RunResult
from trainrig.stopping import Interruption


def run(
    config: TrainingConfig,
    execution: ExecutionConfig | None = None,
    *,
    scan: RawDataTorch | None = None,
    refinement: Method | None = None,
    stitch: bool = True,
    resume: bool = False,
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
        resume: continue a killed run.
        say: receives a line on each part that is done.

    Returns:
        ``path`` is the output folder; ``step`` counts epochs; ``metrics`` holds the last training
        and validation loss, and the network's ``patterns_per_s``. A process that followed another
        has no ``path`` and wrote nothing.

    Raises:
        ValueError: a setting out of range, or a scan that does not fit it.
        FileNotFoundError: no scan.
        BackendMissingError: the backend's package is not installed.
    """
    execution, say = execution or ExecutionConfig(), say or _silent
    if scan is None:
        if config.train_data_file is None:
            raise ValueError("TrainingConfig.train_data_file: missing; give a canonical NPZ scan")
        scan = RawDataTorch.from_file(config.train_data_file)
    test = None if config.test_data_file is None else RawDataTorch.from_file(config.test_data_file)
    check_inputs(scan, test, config, execution.overlap_frames)
    out = Path(config.output_dir)
    follows = process_rank() > 0
    if not follows:
        write_config(out / "config.yaml", config, execution)
    options: dict[str, Any] = {"do_stitching": stitch and not follows}
    options["M"] = 20 if scan.N == 64 else 32
    if config.backend == "pytorch":
        options |= {"execution_config": execution, "overrides": {"resume": resume}}
    try:
        results = run_cdi_example_with_backend(scan, test, config, **options)[2]
    except Interruption:
        if not follows:  # the first process says so for all
            raise
        return RunResult(path=None, status="interrupted", counts="epoch")
    history = results["history"]
    if follows:
        return RunResult(path=None, status="complete", step=len(history["loss"]), counts="epoch")
    losses = history["train_loss"]
    final = f", loss {losses[-1]:.5f}" if losses else ""
    say(f"{out}: trained {len(losses)} epochs on {len(scan)} frames{final}")
    metrics = {
        split: {"loss": values[-1]}
        for split in ("train", "val")
        if (values := history.get(f"{split}_loss"))
    }
    if "reconstruction" in results:
        found = results["reconstruction"]
        say(f"network: {found.patterns_per_s:.0f} patterns/s")
        metrics["network"] = {"patterns_per_s": found.patterns_per_s}
        method = refinement or Method(RefineSettings(epochs=0))
        for line in save_outputs(
            method,
            test or scan,
            found,
            out,
            seed=execution.seed,
            preview_every_epochs=execution.preview_every_epochs,
        ):
            say(line)
    return RunResult(path=out, status="complete", step=len(losses), counts="epoch", metrics=metrics)


def _silent(line: str) -> None:
    """Swallow a line."""
