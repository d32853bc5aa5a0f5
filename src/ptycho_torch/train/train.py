"""The training loop of the network, in a run directory of the core's recorder.

``trained`` trains a model on a scan and leaves in the run directory, beside what every run leaves
(``trainrig.runs``): ``checkpoints/best-*.ckpt`` and ``last.ckpt`` for Ptychodus,
``logs/metrics.csv`` and, if asked for, ``previews/*.png``.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ptycho_torch.config.execution import ExecutionConfig
from ptycho_torch.data.dataset import loader
from ptycho_torch.model import PtychoPINN_Lightning
from ptycho_torch.train.inputs import (
    EXPERIMENT,
    TrainingData,
    identity_of,
    length_key,
    refuse_older_run,
)
from ptycho_torch.train.steps import (
    Arithmetic,
    build_optimizer,
    evaluate,
    loss_of,
    plateau_of,
    schedule_of,
    step_batches,
    update_of,
)
from ptycho_torch.train.team import team_of
from trainrig.branching import Branch, find_branch
from trainrig.checkpoint import latest_checkpoint, load_weights
from trainrig.config import InitConfig
from trainrig.device import set_precision
from trainrig.distributed import Team
from trainrig.errors import DivergedError
from trainrig.files import write_atomically
from trainrig.loop import StepRecord, train_steps
from trainrig.optim.needs import needs_of
from trainrig.processes import process_count
from trainrig.recorder import Interruption, Intervals, Recorder, recorded
from trainrig.run_status import read_status
from trainrig.runs import describe_environment
from trainrig.seeding import make_deterministic, set_seed
from trainrig.tracking.tracker import check_tracker, track_run
from trainrig.updates import evaluated_weights, keep_evaluated_weights

logger = logging.getLogger(__name__)

#: What a line of ``progress.txt`` shows.
COLUMNS = ("step", "epoch", "split", "loss", "elapsed", "steps_per_second")


@dataclass
class History:
    """Losses per epoch, and the sum of the epoch under way; part of every checkpoint."""

    train_loss: list[float] = field(default_factory=list)
    val_loss: list[float] = field(default_factory=list)
    sum: Tensor = field(default_factory=lambda: torch.zeros(()))
    items: int = 0

    def add(self, mean: Tensor, count: int) -> None:
        """Take the mean loss of a batch of ``count`` rows."""
        self.sum = self.sum.to(mean.device) + mean * count
        self.items += count

    def close_epoch(self, val_loss: float) -> None:
        """Append both losses."""
        self.train_loss.append(float(self.sum / self.items))
        self.val_loss.append(val_loss)
        self.sum, self.items = torch.zeros(()), 0

    def best_epochs(self, execution: ExecutionConfig) -> list[int]:
        """Return which epochs, counted from 0, are the best so far; an earlier one wins a tie."""
        losses = getattr(self, execution.checkpoint_monitor_metric)
        sign = -1 if execution.checkpoint_mode == "max" else 1
        ranked = sorted(range(len(losses)), key=lambda epoch: (sign * losses[epoch], epoch))
        return ranked[: execution.checkpoint_save_top_k]

    def is_over(self, patience: int) -> bool:
        """Say whether the validation loss has been above its lowest for ``patience`` epochs."""
        losses = self.val_loss
        return bool(losses) and len(losses) - 1 - losses.index(min(losses)) >= max(patience, 1)

    def table(self) -> str:
        """Return ``metrics.csv``."""
        rows = zip(self.train_loss, self.val_loss, strict=True)
        lines = ["epoch,train_loss,val_loss", *(f"{i},{t},{v}" for i, (t, v) in enumerate(rows, 1))]
        return "\n".join(lines) + "\n"

    def state_dict(self) -> dict[str, Any]:
        """Return the losses so far."""
        losses = {"train_loss": list(self.train_loss), "val_loss": list(self.val_loss)}
        return {**losses, "sum": self.sum.cpu(), "items": self.items}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over the losses so far."""
        self.train_loss, self.val_loss = list(state["train_loss"]), list(state["val_loss"])
        self.sum, self.items = state["sum"], state["items"]


@dataclass
class EpochHooks:
    """What callbacks of Lightning's kind ask a trainer for, when an epoch has ended.

    Attributes:
        callbacks: with ``on_validation_epoch_end`` and ``on_train_epoch_end``.
        callback_metrics: losses of the epoch, by the model's names for them.
        current_epoch: counted from 0; after the training, how many there were.
        sanity_checking: never.
    """

    callbacks: list[Any] = field(default_factory=list)
    callback_metrics: dict[str, float] = field(default_factory=dict)
    current_epoch: int = 0
    sanity_checking: bool = False

    def epoch_ended(self, model: PtychoPINN_Lightning, history: History) -> None:
        """Call the callbacks."""
        self.current_epoch = len(history.train_loss) - 1
        losses = {
            model.loss_name: history.train_loss[-1],
            model.val_loss_name: history.val_loss[-1],
        }
        self.callback_metrics = losses
        for callback in self.callbacks:
            callback.on_validation_epoch_end(self, model)
            callback.on_train_epoch_end(self, model)
        self.current_epoch += 1


class Training:
    """All that a training is made of, built before anything is written.

    Args:
        model: built from its configurations, untrained.
        data: what it is trained on.
        execution: hardware, logging, checkpoints.
        team: the processes, if there are several.

    Raises:
        ValueError: settings that do not fit the scan or each other.
    """

    def __init__(
        self,
        model: PtychoPINN_Lightning,
        data: TrainingData,
        execution: ExecutionConfig,
        team: Team | None,
    ) -> None:
        self.model, self.data, self.execution, self.team = model, data, execution, team
        t = model.training_config
        _demand_determinism(execution.deterministic)
        set_precision("fp32")  # bf16-mixed is autocast's
        set_seed(execution.seed)
        sets = data.prepare(model, execution.seed)
        for one in sets:
            one.team = Team(0, 1) if team is None else team
        self.device = torch.device({"gpu": "cuda"}.get(a := execution.resolved_accelerator(), a))
        self.arithmetic = Arithmetic(execution.precision, self.device)
        model.to(self.device)
        if self.arithmetic.double:
            model.double()
        size = t.batch_size * max(t.n_devices, 1)  # the torch side's is per device
        workers, overlap = execution.num_workers, max(1, t.overlap_frames)
        pinned = execution.pin_memory and self.device.type == "cuda"
        self.batches = loader(
            sets[0],
            max(1, size // overlap),
            seed=execution.seed,
            take=math.ceil(len(sets[0]) / overlap),  # an epoch passes as many frames either way
            num_workers=workers,
            pin_memory=pinned,
        )
        self.held = loader(sets[1], size, num_workers=workers, pin_memory=pinned)
        lr = execution.learning_rate * math.sqrt(max(t.n_devices, 1))
        accum_steps = execution.accum_steps
        trained = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = build_optimizer(t, trained, lr=lr, accum_steps=accum_steps)
        self.update = update_of(model, self.optimizer, self.arithmetic, team)
        self.per_epoch = math.ceil(len(self.batches) / accum_steps)
        self.schedule = schedule_of(t, lr, self.per_epoch)
        self.plateau = plateau_of(t, self.optimizer)
        self.history = History()

    @property
    def parts(self) -> dict[str, Any]:
        """What a checkpoint holds beside the weights."""
        parts = {"optimizer": self.optimizer, "history": self.history}
        optional = {"plateau": self.plateau, "scaler": self.arithmetic.scaler}
        return parts | {name: part for name, part in optional.items() if part is not None}

    def steps(self, start: int, total: int) -> Iterator[StepRecord]:
        """Train after step ``start`` and yield after each step; the leader's numbers hold."""
        if self.team is not None:
            start = self.team.equalise(self.model, self.optimizer, start, average=False)
            total = self.team.told(total)
            for part in (self.plateau, self.arithmetic.scaler):
                if part is not None:
                    part.load_state_dict(self.team.told(part.state_dict()))
        batches: Iterator[Any] = step_batches(
            self.batches,
            self.arithmetic,
            accum_steps=self.execution.accum_steps,
            per_epoch=self.per_epoch,
            start=start,
        )
        yield from train_steps(
            self.model,
            self.optimizer,
            batches if self.team is None else self.team.orders(batches),
            loss_of(self.arithmetic, self.history.add),
            schedule=self.schedule,
            total_steps=total,
            start_step=start,
            update=self.update,
        )

    def evaluate(self) -> None:
        """End an epoch: append both losses; its processes do so together."""
        patches = self.execution.log_patch_stats and (self.team is None or self.team.leads)
        with evaluated_weights(self.model, self.optimizer):
            loss = evaluate(self.model, self.held, self.arithmetic, say_patches=patches)
        self.history.close_epoch(loss)
        if self.plateau is not None:
            self.plateau.step(loss)

    def to_cpu(self) -> None:
        """Put the trained model on the CPU, in single precision and evaluation mode."""
        for p in self.model.parameters() if self.arithmetic.double else ():
            p.data = p.data.float()
        self.model.cpu().eval()

    def environment(self) -> dict[str, Any]:
        """Return command line, versions, code, device, threads and processes."""
        devices = self.execution.devices
        return describe_environment(
            "ptycho_torch",
            device=self.device.type,
            threads=torch.get_num_threads(),
            processes=max(devices if isinstance(devices, int) else 1, process_count()),
            optimizer=needs_of(self.optimizer).describe(),
        )


@contextlib.contextmanager
def trained(
    model: PtychoPINN_Lightning,
    data: TrainingData,
    run_dir: Path,
    execution: ExecutionConfig,
    *,
    overwrite: bool = False,
    init: InitConfig | None = None,
    texts: Mapping[str, str] | None = None,
    hooks: EpochHooks | None = None,
) -> Iterator[tuple[Recorder, History]]:
    """Train, then yield the record, still open, for what else belongs to the run.

    An unfinished training in ``run_dir`` is continued, a finished one is loaded. Within the block
    the model is on the CPU, with the weights to evaluate.

    Args:
        model: built from its configurations, untrained.
        data: what it is trained on.
        run_dir: created if needed.
        execution: hardware, logging, checkpoints.
        overwrite: remove the training in the folder first.
        init: another run that the training begins from. Of its weights alone, the probe and the
            scales are left: they belong to the scan.
        texts: name → content of files that are written when the run is opened.
        hooks: called after each epoch.

    Raises:
        ValueError: the run in the folder is of another configuration, scan, device or code.
        DivergedError: a loss, or a weight, has become infinite or NaN, now or earlier.
        Interruption: the run was asked to stop, and its state is saved.
    """
    with team_of(execution.device_count(), follow_training, model, data, execution) as team:
        training = Training(model, data, execution, team)
        init = init or InitConfig()
        options = _record_options(training, run_dir, init, overwrite=overwrite)
        with recorded(run_dir, **options) as record:
            if not record.finished:
                for file, content in (texts or {}).items():
                    write_atomically(run_dir / file, content)
            start = _restore(record, training, options["branch"])
            if record.finished:
                _load_finished(record, training)
            else:
                with _dismissing(team, record):
                    _train(record, training, start, hooks or EpochHooks())
            if record.directory.status()["status"] != "diverged":
                training.to_cpu()
                yield record, training.history
    result = record.result
    if result.status == "diverged":
        raise DivergedError(f"{run_dir}: diverged: {result.message}")


def _restore(record: Recorder, training: Training, branch: Branch | None) -> int:
    """Continue from where the run is, or from what it begins from; return the step reached."""
    model, own = training.model, [value.detach().clone() for value in _of_scan(training.model)]
    start = record.restore(model, **training.parts)
    if branch is not None and not branch.state and start == 0:
        for tensor, value in zip(_of_scan(model), own, strict=True):
            tensor.data.copy_(value)
    if training.history.is_over(training.execution.early_stop_patience):
        record.total = start
    return start


def _train(record: Recorder, training: Training, start: int, hooks: EpochHooks) -> None:
    """Train from step ``start`` on; the loop of a training."""
    model, execution, history = training.model, training.execution, training.history
    patience = execution.early_stop_patience
    with _bar(execution, record, start) as bar:
        for step in training.steps(start, record.total):
            number = step.step
            if number % training.per_epoch == 0:
                training.evaluate()
                rate = {} if step.lr is None else {"lr": step.lr}
                if execution.logger_backend == "csv":
                    write_atomically(record.directory.logs / "metrics.csv", history.table())
                record.row("train", number, loss=history.train_loss[-1], **rate)
                record.evaluation("val", number, loss=history.val_loss[-1])
                with record.evaluated(number):
                    _show_epoch(record.directory.path, training, hooks)
                if history.is_over(patience):
                    record.total = number
            record.settle(number)
            bar.update()
            if number == record.total:
                break
    if history.is_over(patience):
        record.notes["stopped_early"] = patience
    keep_evaluated_weights(model, training.optimizer)
    if execution.enable_checkpointing:
        best = [_best_name(epoch) for epoch in history.best_epochs(execution)[:1]]
        path = record.directory.path / "checkpoints/last.ckpt"
        _export(model, path, epoch=len(history.train_loss), best="".join(best))


def follow_training(
    model: PtychoPINN_Lightning, data: TrainingData, execution: ExecutionConfig
) -> None:
    """Train on this process's shares of the leader's batches, until that has finished or stopped.

    Raises:
        ChildProcessError: the leader is gone without a word.
    """
    with team_of(execution.device_count(), follow_training) as team:
        assert team is not None  # several processes were started
        with team.following():
            training = Training(model, data, execution, team)
            total = model.training_config.epochs * training.per_epoch
            for step in training.steps(0, total):
                if step.step % training.per_epoch == 0:
                    training.evaluate()


def _demand_determinism(wanted: bool | str) -> None:
    if wanted:
        make_deterministic()
    torch.use_deterministic_algorithms(bool(wanted), warn_only=wanted == "warn")


def _of_scan(model: PtychoPINN_Lightning) -> list[Tensor]:
    """Return what of a model belongs to the scan and not to the network."""
    scales = [model.input_factor, model.intensity_scale, model.probe_norm]
    return [*scales, model.net.log_scale, model.net.probe_parts]


def _record_options(
    training: Training, run_dir: Path, init: InitConfig, *, overwrite: bool
) -> dict[str, Any]:
    """Return what a run is and what it records when, for ``trainrig.recorder.recorded``."""
    refuse_older_run(run_dir, overwrite=overwrite)
    identity = identity_of(training.model, training.data, training.execution)
    branch, begun = find_branch(run_dir, init.run, state=init.state, overwrite=overwrite)
    if begun is not None:
        identity["branch"] = begun
    execution, t, per_epoch = training.execution, training.model.training_config, training.per_epoch
    kind = execution.logger_backend
    total = t.epochs * per_epoch
    status = {} if overwrite else read_status(run_dir)
    if status.get("stopped_early") == execution.early_stop_patience:
        total = min(total, status["epoch"] * per_epoch)
    live = kind if kind in ("trackio", "tensorboard") else "none"
    check_tracker(live)
    often = execution.enable_checkpointing
    return {
        "config": identity,
        "environment": training.environment(),
        "branch": branch,
        "total": total,
        "length": length_key(t),
        "overwrite": overwrite,
        "columns": COLUMNS,
        "per_epoch": per_epoch,
        "intervals": Intervals(
            log=per_epoch,
            evaluate=per_epoch,
            save=per_epoch if often else 0,
            save_seconds=600.0 if often else 0.0,
        ),
        "track": None if live == "none" else track_run(EXPERIMENT, identity, live),
    }


def _load_finished(record: Recorder, training: Training) -> None:
    """Load what a training has come to; nothing of one that has diverged."""
    if training.team is not None:  # the others wait to be told that there is nothing to do
        _ = list(training.steps(record.total, record.total))
    checkpoint = latest_checkpoint(record.directory.checkpoints)[0]
    if record.directory.status()["status"] == "complete" and checkpoint is not None:
        load_weights(training.model, checkpoint)
        training.history.load_state_dict(checkpoint.state["history"])


@contextlib.contextmanager
def _dismissing(team: Team | None, record: Recorder) -> Iterator[None]:
    """End the processes that follow this one where it stops before their last step."""
    longest = record.total
    try:
        yield
    except (DivergedError, Interruption):
        if team is not None and record.step < longest:
            team.dismiss()
        raise
    if team is not None and record.step < longest:
        team.dismiss()


def _show_epoch(run_dir: Path, training: Training, hooks: EpochHooks) -> None:
    """Export an epoch that is among the best, and draw its object, with the weights to evaluate."""
    execution, history, model = training.execution, training.history, training.model
    epoch = len(history.train_loss)
    hooks.epoch_ended(model, history)
    if execution.enable_checkpointing:
        kept = {_best_name(number): number for number in history.best_epochs(execution)}
        folder = run_dir / "checkpoints"
        for name, number in kept.items():
            if number == epoch - 1:
                _export(model, folder / name, epoch=epoch)
        for path in folder.glob("best-*.ckpt"):
            if path.name not in kept:
                path.unlink()
    every = execution.preview_every_epochs
    if every and epoch % every == 0:
        from ptycho_torch.recon.inference import reconstruct
        from ptycho_torch.train.figures import draw_object

        found = reconstruct(model, training.data.scan, device=str(training.device))
        path = run_dir / "previews" / f"epoch_{epoch:04d}.png"
        path.parent.mkdir(exist_ok=True)
        draw_object(found.object, found.covered, path, title=f"epoch {epoch}")
        write_atomically(path.parent / "latest.png", path.read_bytes())


def _best_name(epoch: int) -> str:
    return f"best-epoch={epoch:04d}.ckpt"


def _export(model: PtychoPINN_Lightning, path: Path, **fields: Any) -> None:
    """Write a ``.ckpt`` for Ptychodus."""
    buffer = io.BytesIO()
    torch.save(model.checkpoint(**fields), buffer)
    write_atomically(path, buffer.getvalue())


def _bar(execution: ExecutionConfig, record: Recorder, start: int) -> Any:
    """Return a bar over the steps of a training."""
    from tqdm import tqdm

    off = not execution.enable_progress_bar
    return tqdm(total=record.total, initial=start, unit="step", disable=off, dynamic_ncols=True)
