"""Training with the Lightning Trainer: loaders, checkpoints, loggers, exact resume.

``fit`` trains a model on a scan and leaves in the run directory: ``checkpoints/best-*.ckpt``,
``checkpoints/{last,previous}.ckpt``, ``logs/metrics.csv`` and, if asked for, ``previews/*.png``. A
run that was killed continues from them with the same weights as an uninterrupted one (CPU).
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
from lightning.pytorch.callbacks import Callback, EarlyStopping

from ptycho_torch.config.execution import LOGGERS, ExecutionConfig
from ptycho_torch.data.dataset import GroupDataset, check_frame_side, loader, split_tail
from ptycho_torch.model import PtychoPINN_Lightning
from ptycho_torch.physics.scaling import input_factor, mean_frame_energy
from ptycho_torch.raw_data import RawDataTorch
from ptycho_torch.scan.grouping import neighbourhoods
from ptycho_torch.stepping import check_optimizer
from ptycho_torch.train.callbacks import (
    History,
    HistoryCallback,
    LastCheckpoint,
    PatchStatsCallback,
    PreviewCallback,
    RunCheckpoint,
    ShareCallback,
    newest_checkpoint,
)
from ptycho_torch.train.run_identity import identity_of, write_identity
from ptycho_torch.train.stop_callback import StopCallback
from trainrig.device import set_precision
from trainrig.seeding import set_seed

logger = logging.getLogger(__name__)


def history_table(run_dir: Path, execution: ExecutionConfig) -> Path | None:
    """Where the losses go with ``--logger csv``."""
    return run_dir / "logs" / "metrics.csv" if execution.logger_backend == "csv" else None


def make_logger(name: str, folder: Path) -> Any:
    """The Lightning logger of that name.

    Raises:
        ValueError: unknown, with the list.
        ImportError: its package is not installed.
    """
    if name not in LOGGERS:
        raise ValueError(f"--logger: {name!r} is not supported; choose one of {', '.join(LOGGERS)}")
    if name in ("none", "csv"):  # the table is HistoryCallback's
        return False
    from ptycho_torch.train.live_logger import LiveLogger

    return LiveLogger(name, folder)


def prepare(
    model: PtychoPINN_Lightning,
    scan: RawDataTorch,
    validation: RawDataTorch | None,
    *,
    nsamples: int | None = None,
    seed: int = 42,
    grouping: dict[str, Any] | None = None,
    intensity_scale: float | None = None,
) -> tuple[GroupDataset, GroupDataset]:
    """Fix the scan's scales in the model and build training and validation sets."""
    data = model.data_config
    check_frame_side(scan, data.N)
    settings = {"K": max(data.K, data.C), "seed": seed, **(grouping or {})}
    count = len(scan) if nsamples is None else nsamples
    groups = scan.group(data.grid_size[0], count, **settings)
    factor = input_factor(mean_frame_energy(scan.diff3d), scan.N)
    model.set_scan(scan.probe_modes, factor, intensity_scale)
    photons = factor * float(model.intensity_scale)
    if validation is None:
        train_rows, held = split_tail(len(groups))
        other, other_groups = scan, groups
    else:
        train_rows, held = None, None
        other = validation
        other_groups = other.group(data.grid_size[0], len(other), **settings)
    labels = model.supervised
    overlap = model.training_config.overlap_frames
    if overlap > 1:
        frames = groups.nn_indices[:, 0] if train_rows is None else groups.nn_indices[train_rows, 0]
        groups, train_rows = neighbourhoods(scan.xcoords, scan.ycoords, frames, overlap), None
    return (
        GroupDataset(scan, groups, photons, labels=labels, rows=train_rows),
        GroupDataset(other, other_groups, photons, labels=labels, rows=held),
    )


def _silence() -> None:
    """Keep Lightning's advertisements and remarks on what is meant out of the run's output."""
    for name in ("pytorch.utilities.rank_zero", "fabric.utilities.rank_zero"):
        logging.getLogger(f"lightning.{name}").setLevel(logging.WARNING)  # no advertisements
    logging.getLogger("lightning.fabric.utilities.distributed").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*Checkpoint directory .* exists.*")
    warnings.filterwarnings("ignore", message=".*your dataloader is not resumable.*")  # ours is
    warnings.filterwarnings("ignore", message=".*number of training batches.*smaller than.*")
    warnings.filterwarnings("ignore", message=".*It is recommended to use .*sync_dist=True.*")
    warnings.filterwarnings("ignore", message=".*srun. command is available.*")
    warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")


def _hooks(
    model: PtychoPINN_Lightning, run_dir: Path, execution: ExecutionConfig
) -> list[Callback]:
    """Checkpoints and the early stop, as the settings ask for them."""
    hooks: list[Callback] = []
    if execution.enable_checkpointing:
        hooks.append(
            RunCheckpoint(
                dirpath=run_dir / "checkpoints",
                filename="best-{epoch:04d}",
                monitor=execution.checkpoint_monitor_metric,
                mode=execution.checkpoint_mode,
                save_top_k=execution.checkpoint_save_top_k,
                enable_version_counter=False,
            )
        )
        # A callback of its own: save_last would leave out epochs that are not among the best.
        hooks.append(LastCheckpoint(run_dir / "checkpoints"))
    if execution.early_stop_patience < model.training_config.epochs:
        hooks.append(
            EarlyStopping(model.val_loss_name, patience=execution.early_stop_patience, mode="min")
        )
    return hooks


def make_trainer(
    model: PtychoPINN_Lightning,
    run_dir: Path,
    execution: ExecutionConfig,
    callbacks: Iterable[Callback] = (),
) -> lightning.Trainer:
    """The Trainer with its checkpoints and logger."""
    _silence()
    precision: Any = execution.precision  # checked; lightning declares literals
    deterministic: Any = execution.deterministic
    return lightning.Trainer(
        default_root_dir=run_dir,
        max_epochs=model.training_config.epochs,
        accelerator=execution.resolved_accelerator(),
        devices=execution.devices,
        strategy=execution.strategy,
        precision=precision,
        accumulate_grad_batches=execution.accum_steps,
        gradient_clip_val=model.training_config.gradient_clip_val,
        deterministic=deterministic,
        logger=make_logger(execution.logger_backend, run_dir),
        callbacks=[*callbacks, *_hooks(model, run_dir, execution)],
        enable_checkpointing=execution.enable_checkpointing,
        enable_progress_bar=execution.enable_progress_bar,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,  # the sets share every batch themselves
        log_every_n_steps=1,
    )


def fit(
    model: PtychoPINN_Lightning,
    scan: RawDataTorch,
    run_dir: Path,
    execution: ExecutionConfig,
    *,
    validation: RawDataTorch | None = None,
    resume: bool = False,
    **preparation: Any,
) -> History:
    """Train; see the module's docstring for what is left in ``run_dir``.

    Args:
        model: built from its configurations, untrained.
        scan: training scan.
        run_dir: created if needed.
        execution: hardware, logging, checkpoints.
        validation: scan for validation; the last 5 % of the training groups by default.
        resume: continue from the newest whole checkpoint, if there is any.
        preparation: keywords of ``prepare``.

    Raises:
        ValueError: the checkpoint is of another configuration, scan, device or code.
    """
    set_precision("fp32")  # bf16 is Lightning's autocast
    set_seed(execution.seed)
    train_set, held = prepare(model, scan, validation, seed=execution.seed, **preparation)
    history = HistoryCallback(history_table(run_dir, execution))
    callbacks: list[Callback] = [history]
    if execution.log_patch_stats:
        callbacks.append(PatchStatsCallback())
    if execution.preview_every_epochs:
        folder = run_dir / "previews"
        callbacks.append(PreviewCallback(scan, folder, execution.preview_every_epochs))
    trainer = make_trainer(model, run_dir, execution, callbacks)
    checkpoint, ignored = newest_checkpoint(run_dir / "checkpoints") if resume else (None, [])
    for message in ignored:
        logger.warning("%s; continuing from %s", message, checkpoint)
    identity = identity_of(model, scan, execution, preparation, validation)
    needs = check_optimizer(
        model.training_config, lr=execution.learning_rate, accum_steps=execution.accum_steps
    ).describe()
    write_identity(
        run_dir, identity, execution, check=checkpoint is not None, record={"optimizer": needs}
    )
    run_fit(trainer, model, train_set, held, execution, checkpoint)
    return history.history


def run_fit(
    trainer: lightning.Trainer,
    model: PtychoPINN_Lightning,
    train_set: GroupDataset,
    held: GroupDataset,
    execution: ExecutionConfig,
    checkpoint: Path | None = None,
) -> None:
    """Build the loaders and run the Trainer; the model ends on the CPU in evaluation mode."""
    training = model.training_config
    size = training.batch_size * max(training.n_devices, 1)  # the torch side's is per device
    workers, overlap = execution.num_workers, max(1, training.overlap_frames)
    batches = loader(
        train_set,
        max(1, size // overlap),
        seed=execution.seed,
        take=math.ceil(len(train_set) / overlap),  # an epoch passes as many frames either way
        num_workers=workers,
    )
    check = loader(held, size, num_workers=workers)
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined] # made at run time
    callbacks.append(ShareCallback(train_set, held))
    if execution.enable_checkpointing:
        folder = Path(trainer.default_root_dir) / "checkpoints"
        sampler: Any = batches.sampler
        callbacks.append(StopCallback(folder, sampler))
    model.train()
    trainer.fit(model, batches, check, ckpt_path=None if checkpoint is None else str(checkpoint))
    model.finish_training()
    model.cpu().eval()
