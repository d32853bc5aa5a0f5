"""What happens beside training: checkpoints, losses per epoch, previews, a look at the patches."""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from ptycho_torch.data.dataset import GroupDataset
from ptycho_torch.raw_data import RawDataTorch
from trainrig.checkpoint import no_valid
from trainrig.distributed import Team
from trainrig.errors import DivergedError
from trainrig.files import replacing, temporary_name, write_atomically
from trainrig.tracking.progress import format_line

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def appearing_whole(path: Path, trainer: Any) -> Iterator[Path]:
    """Yield where the leading process writes what becomes ``path``, as ``replacing`` does.

    Raises:
        OSError: the disk is full; it names ``path``, not Lightning's own temporary file elsewhere.
    """
    if trainer.is_global_zero:
        try:
            with replacing(path) as temporary:
                yield temporary
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from None
    else:  # Lightning writes nothing here
        yield temporary_name(path)


class RunCheckpoint(ModelCheckpoint):
    """Best and last checkpoints whose contents do not depend on where the run directory lies.

    They appear by one rename: Lightning moves its files there from the folder of temporary ones,
    which may be on another disk.
    """

    _PATHS = ("best_model_path", "last_model_path", "kth_best_model_path", "dirpath")

    def state_dict(self) -> dict[str, Any]:
        """The callback's state with paths relative to the checkpoint folder."""
        state = super().state_dict()
        for key in self._PATHS:
            state[key] = Path(state[key]).name if state.get(key) else state.get(key)
        kept = state.get("best_k_models", {})
        state["best_k_models"] = {Path(path).name: score for path, score in kept.items()}
        return state

    def _save_checkpoint(self, trainer: Any, filepath: str) -> None:
        with appearing_whole(Path(filepath), trainer) as temporary:
            super()._save_checkpoint(trainer, str(temporary))
        self._last_checkpoint_saved = filepath

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state for the folder the run lies in now."""
        assert self.dirpath is not None  # always given
        state = dict(state_dict)
        for key in self._PATHS[:-1]:
            state[key] = str(Path(self.dirpath) / state[key]) if state.get(key) else state.get(key)
        state["dirpath"] = self.dirpath
        kept = state.get("best_k_models", {})
        state["best_k_models"] = {str(Path(self.dirpath) / n): s for n, s in kept.items()}
        super().load_state_dict(state)


class LastCheckpoint(RunCheckpoint):
    """``last.ckpt`` after every epoch; the one before it stays, as ``previous.ckpt``.

    An ``interim.ckpt`` within the epoch, see ``StopCallback``, has served its turn then.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(dirpath=folder, filename="last", enable_version_counter=False)

    def _save_checkpoint(self, trainer: Any, filepath: str) -> None:
        last = Path(filepath)
        if trainer.is_global_zero and last.is_file():
            last.replace(last.with_name("previous.ckpt"))
        super()._save_checkpoint(trainer, filepath)
        if trainer.is_global_zero:
            last.with_name("interim.ckpt").unlink(missing_ok=True)


def newest_checkpoint(folder: Path) -> tuple[Path | None, list[str]]:
    """The newest whole checkpoint to go on from, and a message for each damaged one.

    Raises:
        CheckpointError: there are checkpoints, and none is whole.
    """
    whole, ignored = [], []
    for name in ("last.ckpt", "interim.ckpt", "previous.ckpt"):
        path = folder / name
        if not path.is_file():
            continue
        try:
            with zipfile.ZipFile(path) as archive:
                damaged = archive.testzip()
            if damaged is not None:
                raise ValueError(f"{damaged} is damaged")
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            whole.append((content["global_step"], path))
        except Exception as error:  # of any kind, over damaged bytes
            reason = " ".join(str(error).split())[:200]
            ignored.append(f"ignored {path}: cannot be read ({reason})")
    if ignored and not whole:
        raise no_valid(folder, ignored)
    return (max(whole, key=lambda pair: pair[0])[1] if whole else None), ignored


def check_epochs(checkpoint: Path, epochs: int) -> None:
    """Refuse to end a training before the epoch that its checkpoint has reached.

    Raises:
        ValueError: naming both.
    """
    content = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
    reached = len(content["callbacks"]["HistoryCallback"]["train_loss"])
    if reached > epochs:
        raise ValueError(
            f"--nepochs {epochs}: {checkpoint} has had {reached} epochs already; give {reached} "
            "or more, or start anew"
        )


@dataclass
class History:
    """Losses per epoch."""

    train_loss: list[float]
    val_loss: list[float]
    seconds: list[float] = field(default_factory=list)


class HistoryCallback(Callback):
    """Collects the losses per epoch and rewrites ``metrics.csv`` with all of them.

    Lightning's own CSV logger starts an empty file when a run is resumed. ``progress.txt`` has the
    same with the time, for the terminal view.
    """

    def __init__(self, table: Path | None = None) -> None:
        self.history, self.table = History([], []), table
        self._sum, self._items, self._begun = torch.zeros(()), 0, time.perf_counter()

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Start the clock."""
        self._begun = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Add to the epoch's mean, which Lightning would forget between two processes."""
        mean = outputs["mean"]
        self._sum = self._sum.to(mean.device) + mean * batch["count"]
        self._items += batch["count"]

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Append both losses, if logged.

        Raises:
            DivergedError: one is not finite; the checkpoint of the epoch before stays.
        """
        self.history.train_loss.append(float(self._sum / self._items))
        self._sum, self._items = torch.zeros(()), 0
        if "val_loss" in trainer.callback_metrics:
            self.history.val_loss.append(float(trainer.callback_metrics["val_loss"]))
        self.history.seconds.append(time.perf_counter() - self._begun)
        self._begun = time.perf_counter()
        if self.table is not None and trainer.is_global_zero:
            self._write()
        for split, losses in (("train", self.history.train_loss), ("val", self.history.val_loss)):
            if losses and not math.isfinite(losses[-1]):
                raise DivergedError(f"{split} loss {losses[-1]} in epoch {len(losses)}")

    def _write(self) -> None:
        assert self.table is not None
        losses = {"train": self.history.train_loss, "val": self.history.val_loss}
        rows = zip(*losses.values(), strict=False)
        lines = [",".join(["epoch", *(f"{split}_loss" for split in losses)])]
        lines += [f"{i},{','.join(map(repr, row))}" for i, row in enumerate(rows, 1)]
        write_atomically(self.table, "\n".join(lines) + "\n")
        # A checkpoint of before the times were kept has losses without them.
        since = len(self.history.train_loss) - len(self.history.seconds)
        elapsed = [0.0] * since + list(itertools.accumulate(self.history.seconds))
        progress = [
            format_line({"step": i + 1, "split": split, "loss": loss, "elapsed": elapsed[i]})
            for i in range(len(elapsed))
            for split, values in losses.items()
            if i < len(values) and math.isfinite(loss := values[i])
        ]
        write_atomically(self.table.with_name("progress.txt"), "\n".join(progress) + "\n")

    def state_dict(self) -> dict[str, Any]:
        """Part of the checkpoint, so that a resumed run reports every epoch."""
        losses = {name: list(values) for name, values in vars(self.history).items()}
        return {**losses, "sum": self._sum.cpu(), "items": self._items}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the losses so far."""
        losses = (state_dict["train_loss"], state_dict["val_loss"])
        self.history = History(*losses, state_dict.get("seconds", []))
        self._sum, self._items = state_dict["sum"], state_dict["items"]


class PreviewCallback(Callback):
    """Writes the stitched amplitude and phase every so many epochs."""

    def __init__(self, scan: RawDataTorch, folder: Path, every_epochs: int) -> None:
        self.scan, self.folder, self.every = scan, folder, every_epochs

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Draw on rank 0; the image of the last epoch is also ``latest.png``."""
        epoch = trainer.current_epoch + 1
        if epoch % self.every or not trainer.is_global_zero:
            return
        from ptycho_torch.recon.inference import reconstruct
        from ptycho_torch.train.figures import draw_object

        with pl_module.evaluated():
            found = reconstruct(pl_module, self.scan, device=str(pl_module.device))
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"epoch_{epoch:04d}.png"
        draw_object(found.object, found.covered, path, title=f"epoch {epoch}")
        write_atomically(self.folder / "latest.png", path.read_bytes())


class PatchStatsCallback(Callback):
    """Logs the mean and spread of the first held patches: a constant network is seen at once."""

    def on_validation_batch_end(
        self,
        trainer: Any,
        pl_module: Any,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Look at the first batch of a validation."""
        if batch_idx or not trainer.is_global_zero:
            return
        with torch.no_grad():
            patches = pl_module.net.centres(batch["images"])
        parts = {"amplitude": patches.abs(), "phase": patches.angle()}
        words = [f"{name} {part.mean():.3f} (std {part.std():.3f})" for name, part in parts.items()]
        logger.info("epoch %d, held patches: %s", trainer.current_epoch + 1, ", ".join(words))


class ShareCallback(Callback):
    """Tells the data sets which process this is, so that each takes its rows of every batch."""

    def __init__(self, *sets: GroupDataset) -> None:
        self.sets = sets

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Called in every process, before any batch is drawn."""
        for one in self.sets:
            one.team = Team(trainer.global_rank, trainer.world_size)
