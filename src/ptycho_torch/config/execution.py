"""How a run executes: hardware, loaders, logging, checkpoints; no part of the model."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from trainrig.errors import one_of, require
from trainrig.processes import process_count

logger = logging.getLogger(__name__)

LOGGERS = ("csv", "tensorboard", "trackio", "none")
ACCELERATORS = ("auto", "cpu", "gpu", "cuda", "mps")
PRECISIONS = ("32-true", "64-true", "16-mixed", "bf16-mixed")
STRATEGIES = ("auto", "ddp", "ddp_spawn")
MONITORED = ("val_loss", "train_loss")


@dataclass(kw_only=True)
class ExecutionConfig:
    """Execution settings, validated on construction; under ``torchrun``, ``devices`` are all."""

    accelerator: str = "auto"
    devices: int | str = 1
    strategy: str = "auto"
    deterministic: bool | str = True
    precision: str = "32-true"
    accum_steps: int = 1
    num_workers: int = 0
    pin_memory: bool = False
    learning_rate: float = 1e-3
    overlap_frames: int = 0
    enable_progress_bar: bool = False
    preview_every_epochs: int = 0
    log_patch_stats: bool = False
    enable_checkpointing: bool = True
    checkpoint_save_top_k: int = 1
    checkpoint_monitor_metric: str = "val_loss"
    checkpoint_mode: str = "min"
    early_stop_patience: int = 100
    logger_backend: str = "csv"
    inference_batch_size: int | None = None
    seed: int = 42

    def __post_init__(self) -> None:
        """Raise ``ValueError`` on the first value outside its range."""
        one_of("--accelerator", self.accelerator, ACCELERATORS)
        one_of("--precision", self.precision, PRECISIONS)
        one_of("--logger", self.logger_backend, LOGGERS)
        one_of("--strategy", self.strategy, STRATEGIES)
        one_of("--checkpoint-monitor", self.checkpoint_monitor_metric, MONITORED)
        one_of("--checkpoint-mode", self.checkpoint_mode, ("min", "max"))
        require(self.learning_rate > 0, "--learning-rate", self.learning_rate, "give > 0")
        require(
            self.accum_steps >= 1, "--accumulate-grad-batches", self.accum_steps, "give 1 or more"
        )
        require(self.overlap_frames >= 0, "--overlap-frames", self.overlap_frames, "give 0 or more")
        require(self.num_workers >= 0, "--num-workers", self.num_workers, "give 0 or more")
        every = self.preview_every_epochs
        require(every >= 0, "--preview-every-epochs", every, "give 0 or more")
        require(self.seed >= 0, "--seed", self.seed, "give 0 or more")
        started = process_count()
        if started > 1 and self.devices == 1:
            self.devices, self.strategy = started, "ddp"
        require(
            started in (1, self.devices),
            "--devices",
            self.devices,
            f"torchrun started {started} processes; leave it out",
        )
        top = self.checkpoint_save_top_k
        require(top >= 0, "--checkpoint-save-top-k", top, "give 0 or more")

    def device_count(self) -> int:
        """Return how many processes train; ``auto`` is one for each GPU."""
        if isinstance(self.devices, int):
            return max(self.devices, 1)
        import torch

        return max(torch.cuda.device_count(), 1) if self.resolved_accelerator() != "cpu" else 1

    def resolved_accelerator(self) -> str:
        """``auto`` becomes ``cuda`` where one is visible, else ``cpu`` with a log line."""
        import torch

        if self.accelerator == "auto":
            if torch.cuda.is_available():
                return "cuda"
            logger.info("no CUDA device is visible; training on the CPU")
            return "cpu"
        if self.accelerator in ("gpu", "cuda") and not torch.cuda.is_available():
            logger.warning("%s was asked for but none is visible; using the CPU", self.accelerator)
            return "cpu"
        return self.accelerator
