"""The curves of a result file, as a run fills them in, and the times beside them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from deepobs.pytorch.runners.settings import RunSettings
from deepobs.pytorch.testproblems import TestProblem
from trainrig.distributed import mean
from trainrig.errors import DivergedError
from trainrig.loop import StepRecord
from trainrig.recorder import Recorder

METRICS = ("losses", "accuracies")
#: On a GPU, logged losses are fetched this many at a time: each time waits for the device.
FETCHED = 32


class Curves:
    """What a run's result says of its course.

    Attributes:
        lists: of the result file.
        timing: seconds, by what was timed.

    Args:
        settings: of the run.
        problem: set up.
        say: receives console lines.
        pack: runs that share the time of a step.
    """

    def __init__(
        self,
        settings: RunSettings,
        problem: TestProblem,
        *,
        say: Callable[[str], None],
        pack: int = 1,
    ) -> None:
        self.settings, self.problem, self.say, self.pack = settings, problem, say, pack
        self.phases = ["train_eval", *(["valid"] if problem.data.valid else []), "test"]
        kinds = METRICS if problem.has_accuracy else METRICS[:1]
        self.lists: dict[str, list[float]] = {
            f"{title_of(phase)}_{kind}": [] for kind in kinds for phase in self.phases
        }
        self.lists["minibatch_train_losses"] = []
        self.timing: dict[str, list[float]] = {f"{phase}_seconds": [] for phase in self.phases}
        self.timing["train_epoch_seconds"] = []
        self._pending: list[tuple[int, Tensor]] = []
        self._epoch_seconds, self._finite = 0.0, True
        self._since = time.perf_counter()
        cuda = next(problem.net.parameters()).device.type == "cuda"
        self._fetched = FETCHED if cuda else 1

    @property
    def per_epoch(self) -> int:
        """Steps of an epoch."""
        return len(self.problem.data.train)

    @property
    def evaluations(self) -> int:
        """How often the run was evaluated: once before training, and after each epoch."""
        return len(self.lists["train_losses"])

    def resume(self) -> None:
        """Count the time of training again from here."""
        self._since = time.perf_counter()

    def _pause(self) -> None:
        now = time.perf_counter()
        self._epoch_seconds += (now - self._since) / self.pack
        self._since = now

    def take(self, record: Recorder, step: StepRecord) -> None:
        """Take a step's loss before its update, over all processes.

        Raises:
            DivergedError: a logged loss, or the last one of the epoch, is not finite.
        """
        loss, within = mean(step.loss), (step.step - 1) % self.per_epoch
        if within % self.settings.train_log_interval == 0:
            self._pending.append((step.step, loss))
        ends = within == self.per_epoch - 1
        if ends or len(self._pending) >= self._fetched:
            self._fetch(record)
        finite = self._finite and (not ends or bool(torch.isfinite(loss)))
        stops = not finite and self.settings.on_divergence == "stop"
        if ends or stops:
            self._pause()
            self.timing["train_epoch_seconds"].append(self._epoch_seconds)
            self._epoch_seconds = 0.0
        if stops:
            raise DivergedError(f"loss of a minibatch not finite up to step {step.step}")

    def _fetch(self, record: Recorder) -> None:
        """Move pending losses to the curve, which ends with the first non-finite one if told so."""
        numbers = [number for number, _ in self._pending]
        losses = [loss for _, loss in self._pending]
        values = torch.stack(losses).double().tolist() if losses else []
        self._pending.clear()
        for number, value in zip(numbers, values, strict=True):
            if self._finite or self.settings.on_divergence == "continue":
                record.row("minibatch", number, loss=value)
                self.lists["minibatch_train_losses"].append(value)
            self._finite = self._finite and math.isfinite(value)

    def evaluate(self, record: Recorder, step: int) -> None:
        """Append one value to each curve of an evaluation; the loss includes the regulariser.

        Raises:
            DivergedError: a loss is not finite.
        """
        epoch, epochs, finite = step // self.per_epoch, self.settings.num_epochs, True
        self.say("*" * 32)
        self.say(f"Evaluating after {epoch} of {epochs} epochs...")
        with record.evaluated(step):
            for phase in self.phases:
                began, title = time.perf_counter(), title_of(phase)
                loss, accuracy = evaluate(self.problem, phase)
                self.timing[f"{phase}_seconds"].append(time.perf_counter() - began)
                scalars = {"loss": loss} | ({} if accuracy is None else {"accuracy": accuracy})
                for kind, value in zip(METRICS, scalars.values(), strict=False):
                    self.lists[f"{title}_{kind}"].append(value)
                self.say(f"{title.upper()}: loss {loss:g}, acc {accuracy or 0.0:f}")
                record.evaluation(title, step, **scalars)
                finite = finite and math.isfinite(loss)
        if not finite and self.settings.on_divergence == "stop":
            raise DivergedError(f"loss not finite after {epoch} epochs")
        if epoch == epochs:
            self.say("*" * 32)

    def state_dict(self) -> dict[str, Any]:
        """Return everything, for a checkpoint."""
        self._pause()
        return {
            "lists": self.lists,
            "timing": self.timing,
            "per_epoch": self.per_epoch,
            "epoch_seconds": self._epoch_seconds,
            "pending": [(number, float(loss)) for number, loss in self._pending],
            "finite": self._finite,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what ``state_dict`` returned.

        Raises:
            ValueError: of epochs of another number of steps, or of other curves.
        """
        if state["per_epoch"] != self.per_epoch:
            raise ValueError(f"epochs of {state['per_epoch']} steps, and here of {self.per_epoch}")
        if state["lists"].keys() != self.lists.keys():
            raise ValueError(f"curves {', '.join(state['lists'])}; here {', '.join(self.lists)}")
        self.lists = {name: list(values) for name, values in state["lists"].items()}
        self.timing = {name: list(values) for name, values in state["timing"].items()}
        self._epoch_seconds, self._finite = state["epoch_seconds"], state["finite"]
        like = next(self.problem.net.parameters())
        self._pending = [(n, like.new_tensor(loss)) for n, loss in state["pending"]]
        self._since = time.perf_counter()


def evaluate(problem: TestProblem, phase: str) -> tuple[float, float | None]:
    """Average objective and accuracy over a phase's batches, each with equal weight.

    Of several processes, each contributes its rows of every batch.
    """
    getattr(problem, f"{phase}_init_op")()
    losses, accuracies = [], []
    with torch.no_grad():
        l2 = problem.get_regularization_loss() if problem.l2_in_loss else 0.0
        while True:
            try:
                batch = problem.next_batch()
            except StopIteration:
                break
            loss, accuracy = problem.forward_losses(batch, accuracy=problem.has_accuracy)
            losses.append(loss.mean())
            if accuracy is not None:
                accuracies.append(accuracy)
        objective = float(mean(torch.stack(losses).double().mean()) + l2)
        if not accuracies:
            return objective, None
        return objective, float(mean(torch.stack(accuracies).double().mean()))


def title_of(phase: str) -> str:
    """Return what a phase is called in results."""
    return "train" if phase == "train_eval" else phase
