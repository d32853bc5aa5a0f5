"""Ending a Lightning training between two steps, so that it resumes exactly."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback

from ptycho_torch.data.dataset import EpochShuffle
from ptycho_torch.train.callbacks import appearing_whole
from trainrig.stopping import graceful_stop


class StopCallback(Callback):
    """Stops training if asked to, with an exact ``interim.ckpt`` where it is within an epoch.

    Its handlers take the place of Lightning's, which would requeue a SLURM job in their own way.

    Args:
        folder: of the checkpoints.
        sampler: of the training loader; on resume it leaves out what the epoch has had.
    """

    def __init__(self, folder: Path, sampler: EpochShuffle) -> None:
        self.folder, self.sampler = folder, sampler
        self._handlers = contextlib.ExitStack()
        self._done = self._saved = 0  # items of the present epoch

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Listen from here on."""
        self.stop = self._handlers.enter_context(graceful_stop())
        self._done, self._saved = self._saved, 0

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Stop before an epoch: the checkpoint of the one before is there.

        Raises:
            Interruption: if asked to.
        """
        if self._due(trainer) and (self.folder / "last.ckpt").is_file():
            raise self.stop.interruption(f"{self.folder.parent}: epoch {trainer.current_epoch}")

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save and stop after an optimizer step within the epoch.

        Raises:
            Interruption: if asked to; the checkpoint is written.
        """
        self._done += batch["count"]
        stepped = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        within = batch_idx + 1 < trainer.num_training_batches
        if stepped and within and self._due(trainer):
            self._saved = self._done
            with appearing_whole(self.folder / "interim.ckpt", trainer) as temporary:
                trainer.save_checkpoint(temporary, weights_only=False)  # all; says nothing
            raise self.stop.interruption(
                f"{self.folder.parent}: epoch {trainer.current_epoch + 1}, batch {batch_idx + 1}"
            )

    def _due(self, trainer: Any) -> bool:
        """Say whether any process of the run was asked to stop; all of them then do."""
        due = self.stop.due()
        if trainer.world_size == 1:
            return due
        code = torch.tensor(self.stop.exit_code, device=trainer.strategy.root_device)
        return self.stop.join(int(trainer.strategy.reduce(code, reduce_op="max")))

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """The next epoch starts at its first item."""
        self._done = 0

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Give the signals back."""
        self._handlers.close()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Give the signals back."""
        self._handlers.close()

    def state_dict(self) -> dict[str, Any]:
        """Items that the present epoch has had; 0 between epochs."""
        return {"items": self._saved}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Let the first epoch begin after those items."""
        self._saved = self.sampler.skip = state_dict["items"]
