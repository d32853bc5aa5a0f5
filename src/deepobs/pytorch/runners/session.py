"""One training run: evaluate, train an epoch, evaluate; log, checkpoint, resume exactly."""

from __future__ import annotations

import math
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from deepobs.pytorch.runners.settings import RunSettings
from deepobs.pytorch.runners.steps import epoch_steps
from deepobs.pytorch.testproblems import TestProblem
from trainrig.distributed import Team, mean
from trainrig.loop import StepRecord
from trainrig.optim.resume import load_optimizer, optimizer_state
from trainrig.seeding import capture_rng, restore_rng
from trainrig.stopping import StopRequest
from trainrig.tracking.metric_log import MetricLog
from trainrig.updates import evaluated_weights, load_training_weights, weights_to_save

#: Least multiple of a checkpoint's cost between two checkpoints.
CHECKPOINT_COST_FACTOR = 50.0
#: Logged losses are fetched, and looked at for divergence, this many at a time.
FLUSH_LOSSES = 32
METRICS = ("losses", "accuracies")


class Session:
    """Trains one optimizer on one problem.

    Attributes:
        curves: the lists of the result file.
        timing: seconds, by what was timed.
        stop: whether the run was asked to stop; None for a run without files.
        epoch: epochs completed.
        step: steps completed in the present epoch.
        status: ``running``, ``complete`` or ``diverged``.
        pack: runs trained in this program, 1 unless packed.

    Args:
        settings: what to run.
        problem: set up.
        optimizer: over the problem's parameters.
        say: receives console lines.
        on_row: receives logged rows.
    """

    def __init__(
        self,
        settings: RunSettings,
        problem: TestProblem,
        optimizer: torch.optim.Optimizer,
        *,
        say: Callable[[str], None],
        on_row: Callable[[dict[str, Any]], None],
    ) -> None:
        self.settings, self.problem, self.optimizer = settings, problem, optimizer
        self.say, self._sink = say, on_row
        self.log: MetricLog | None = None
        self.stop: StopRequest | None = None
        self.team: Team | None = None
        self.phases = ["train_eval", *(["valid"] if problem.data.valid else []), "test"]
        kinds = METRICS if problem.has_accuracy else METRICS[:1]
        self.curves: dict[str, list[float]] = {
            f"{_title(phase)}_{kind}": [] for kind in kinds for phase in self.phases
        }
        self.curves["minibatch_train_losses"] = []
        self.timing: dict[str, Any] = {f"{phase}_seconds": [] for phase in self.phases}
        self.timing["train_epoch_seconds"] = []
        self.epoch, self.step, self.status = 0, 0, "running"
        self.evaluated, self.pack = -1, 1
        self._pending: list[Tensor] = []
        self._last: Tensor | None = None
        self._epoch_seconds, self._finite = 0.0, True

    def on_row(self, row: dict[str, Any]) -> None:
        """Pass a row on, to the run's own log first."""
        if self.log is not None:
            self.log.append(row)
        self._sink(row)

    def run(self, save: Callable[[], None] | None = None, interval_s: float = 60.0) -> None:
        """Continue from the present position to the end.

        Args:
            save: writes a checkpoint of ``state``; None writes none.
            interval_s: least seconds between two checkpoints.

        Raises:
            Interruption: ``stop`` asked for it; the checkpoint is written.
        """
        clock = SaveClock(save, interval_s)
        while True:
            if self.evaluated < self.epoch:
                self.evaluate()
                self.advance()
                clock.tick()
                if self.status == "running":
                    self._stop_if_asked(save)
            if self.status == "running":
                self.train_epoch(clock)
            if self.status != "running":
                return

    def advance(self) -> None:
        """Note that the present epoch is evaluated; the last one completes the run."""
        self.evaluated = self.epoch
        if self.status == "running" and self.epoch == self.settings.num_epochs:
            self.status = "complete"
            self.say("*" * 32)

    # --- evaluation ---

    def evaluate(self, measure: Callable[[str], tuple[float, float | None]] | None = None) -> None:
        """Append one value to each curve; the loss includes the regulariser.

        Args:
            measure: phase → loss and accuracy; by default from the problem.
        """
        self.say("*" * 32)
        self.say(f"Evaluating after {self.epoch} of {self.settings.num_epochs} epochs...")
        with evaluated_weights(self.problem.net, self.optimizer, self._pass_training_batches):
            finite = self._evaluate_phases(measure)
        if not finite and self.settings.on_divergence == "stop":
            self.status = "diverged"

    def _evaluate_phases(self, measure: Callable[[str], tuple[float, float | None]] | None) -> bool:
        """Return whether all losses are finite."""
        finite = True
        for phase in self.phases:
            start = time.perf_counter()
            loss, accuracy = measure(phase) if measure else evaluate(self.problem, phase)
            self.timing[f"{phase}_seconds"].append(time.perf_counter() - start)
            title = _title(phase)
            row = {"step": self.epoch, "split": title, "loss": loss, "elapsed": self.elapsed()}
            self.curves[f"{title}_losses"].append(loss)
            if accuracy is not None:
                self.curves[f"{title}_accuracies"].append(accuracy)
                row["accuracy"] = accuracy
            self.say(f"{title.upper()}: loss {loss:g}, acc {accuracy or 0.0:f}")
            self.on_row(row)
            finite = finite and math.isfinite(loss)
        return finite

    def elapsed(self) -> float:
        """Return the seconds of training and evaluation so far, over all processes."""
        return self._epoch_seconds + sum(
            sum(values) for values in self.timing.values() if isinstance(values, list)
        )

    # --- training ---

    def learning_rate(self) -> float | None:
        """Return the learning rate of the present epoch."""
        schedule = self._schedule()
        return None if schedule is None else schedule(self.epoch * len(self.problem.data.train))

    def _schedule(self) -> Callable[[int], float] | None:
        """Return steps completed → learning rate; None without one."""
        rates, per_epoch = self.settings.schedule, len(self.problem.data.train)
        if rates is None:
            return None
        return lambda done: rates[max(epoch for epoch in rates if epoch <= done // per_epoch)]

    def train_epoch(self, clock: SaveClock) -> None:
        """Perform the rest of the present epoch."""
        lr, per_epoch = self.learning_rate(), len(self.problem.data.train)
        self.begin_epoch(lr)
        start = time.perf_counter()
        for record in self._steps():
            if not self.take(mean(record.loss)):
                self._dismiss()
                break
            if clock.due():
                self.pause(time.perf_counter() - start)
                clock.tick()
                start = time.perf_counter()
            if self.step < per_epoch and self.stop is not None and self.stop.due():
                self.pause(time.perf_counter() - start)
                self._stop_if_asked(clock.save)
        self.end_epoch(lambda: time.perf_counter() - start)

    def begin_epoch(self, lr: float | None) -> None:
        """Begin the training pass, unless a checkpoint lies within it."""
        if self.step:
            return
        self.problem.train_init_op()
        if lr is not None and self.epoch in (self.settings.schedule or {}):
            self.say("*" * 32)
            self.say(f"Setting learning rate to {lr:f}")

    def take(self, loss: Tensor) -> bool:
        """Take a step's loss before its update; say whether the run continues."""
        if self.step % self.settings.train_log_interval == 0:
            self._pending.append(loss)
        self._last = loss
        self.step += 1
        if len(self._pending) < FLUSH_LOSSES or not self._flush():
            return True
        follows = self.team is not None and not self.team.leads
        return follows or self.settings.on_divergence != "stop"

    def pause(self, seconds: float) -> None:
        """Make ``state`` whole within an epoch, ``seconds`` after it began or was paused last."""
        self._epoch_seconds += seconds
        self._flush()

    def end_epoch(self, seconds: Callable[[], float]) -> None:
        """Finish the epoch; ``seconds`` is asked once its losses have been fetched."""
        last, self._last = self._last, None
        diverged = self._flush() or (last is not None and not bool(torch.isfinite(last)))
        self._epoch_seconds += seconds()
        self.timing["train_epoch_seconds"].append(self._epoch_seconds)
        self.epoch, self.step, self._epoch_seconds = self.epoch + 1, 0, 0.0
        if diverged and self.settings.on_divergence == "stop":
            self.status = "diverged"

    def _stop_if_asked(self, save: Callable[[], None] | None) -> None:
        if self.stop is None or not self.stop.due() or save is None or self.status == "diverged":
            return
        save()
        self._dismiss()
        raise self.stop.interruption(
            f"{self.settings.testproblem}: epoch {self.epoch}, step {self.step}"
        )

    def _dismiss(self) -> None:
        """End the processes that follow this one: they wait for the next batch, if there is one."""
        if self.team is not None and self.step < len(self.problem.data.train):
            self.team.dismiss()

    def _steps(self) -> Iterator[StepRecord]:
        data = self.problem.data
        first = self.epoch * len(data.train) + self.step
        last = (self.epoch + 1) * len(data.train)
        batches = data.train.batches(data.train.passes - 1, start=self.step)
        if self.team is not None:
            batches = self.team.orders(batches)
        schedule = self._schedule()
        return epoch_steps(self.problem, self.optimizer, batches, schedule, first=first, last=last)

    def _pass_training_batches(self) -> Iterator[None]:
        """Pass the batches of the present epoch through the network, for its statistics."""
        carried, train = self.problem.carried_state(), self.problem.data.train
        try:
            for batch in train.batches(max(train.passes - 1, 0)):
                self.problem.forward_losses(batch, accuracy=False)
                yield
        finally:
            self.problem.restore_carried_state(carried)

    def _flush(self) -> bool:
        """Move pending losses to the curve, which ends with the first non-finite one if told so."""
        values = torch.stack(self._pending).double().tolist() if self._pending else []
        self._pending.clear()
        for value in values:
            if self._finite or self.settings.on_divergence == "continue":
                curve = self.curves["minibatch_train_losses"]
                self.on_row({"step": len(curve), "split": "minibatch", "loss": value})
                curve.append(value)
            self._finite = self._finite and math.isfinite(value)
        return not self._finite

    # --- checkpoints ---

    def weights(self) -> dict[str, Any]:
        """Return the network's weights to evaluate, for a checkpoint."""
        return self._to_save()[0]

    def _to_save(self) -> tuple[dict[str, Any], dict[str, Any]]:
        return weights_to_save(self.problem.net, self.optimizer, self._pass_training_batches)

    def _device(self) -> torch.device:
        return next(self.problem.net.parameters()).device

    def state(self) -> dict[str, Any]:
        """Return everything but the weights; tensors and builtins only."""
        return {
            **self._to_save()[1],
            "curves": self.curves,
            "timing": self.timing,
            "position": [self.epoch, self.step, self.evaluated],
            "epoch_seconds": self._epoch_seconds,
            "finite": self._finite,
            "status": self.status,
            "optimizer": optimizer_state(self.optimizer),
            "data": self.problem.data.state_dict(),
            "carried": self.problem.carried_state(),
            "rng": capture_rng(self._device()),
            "log": self.log.sync() if self.log is not None else {},
        }

    def restore(self, weights: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Continue from weights and from what ``state`` returned."""
        self.problem.net.load_state_dict(weights)
        load_training_weights(self.problem.net, dict(state))
        load_optimizer(self.optimizer, state["optimizer"])
        self.curves, self.timing = state["curves"], state["timing"]
        self.epoch, self.step, self.evaluated = state["position"]
        self._epoch_seconds, self._finite = state["epoch_seconds"], state["finite"]
        self.status = state["status"]
        self.problem.data.load_state_dict(state["data"])
        self.problem.begin("train", None)
        self.problem.restore_carried_state(state["carried"])
        restore_rng(state["rng"], self._device())
        if self.log is not None:
            self.log.truncate(state["log"])


class SaveClock:
    """Decides when a checkpoint is due: by time, and at no more than 2 % of the time."""

    def __init__(self, save: Callable[[], None] | None, interval_s: float) -> None:
        self.save, self.interval_s, self.last = save, interval_s, time.monotonic()
        self.cost_s = 0.0

    def due(self) -> bool:
        """Say whether it is time for a checkpoint."""
        if self.save is None:
            return False
        wait = max(self.interval_s, CHECKPOINT_COST_FACTOR * self.cost_s if self.interval_s else 0)
        return time.monotonic() - self.last >= wait

    def tick(self) -> None:
        """Save, if it is time."""
        if self.save is not None and self.due():
            start = time.monotonic()
            self.save()
            self.last = time.monotonic()
            self.cost_s = self.last - start


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


def peak_memory_bytes(device: torch.device) -> int:
    """Return the most memory used so far: on the device for CUDA, else resident in this process."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)


def _title(phase: str) -> str:
    return "train" if phase == "train_eval" else phase
