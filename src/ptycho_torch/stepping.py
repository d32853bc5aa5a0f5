"""Steps of a Lightning training through the update of all systems, with its resume contract.

Lightning always gives ``step`` its closure and takes it for granted that the closure is called.
Here an optimizer is stepped as ``trainrig.optim.needs`` found that it must be.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import lightning.pytorch as lightning
import torch
from torch import Tensor, nn

from trainrig.optim import accepts, make_optimizer, preset_arguments, resolve_optimizer
from trainrig.optim.needs import Needs, check_shared, is_ordinary, needs_of
from trainrig.optim.replica import make_contiguous
from trainrig.optim.resume import load_optimizer, optimizer_state, prepare_optimizer
from trainrig.seeding import capture_rng, restore_rng
from trainrig.updates import (
    evaluated_weights,
    keep_evaluated_weights,
    load_training_weights,
    repeating,
    take_step,
    weights_to_save,
)

ADAM_FAMILY = (torch.optim.Adam, torch.optim.AdamW)


class OptimizerSettings(Protocol):
    """What both training configurations say of an optimizer."""

    optimizer: str
    weight_decay: float
    momentum: float
    adam_beta1: float
    adam_beta2: float


def build_optimizer(
    t: OptimizerSettings, parameters: list[nn.Parameter], *, lr: float, accum_steps: int
) -> torch.optim.Optimizer:
    """Build the configured optimizer; one that has no rate or decay is given none.

    Args:
        t: a training configuration.
        parameters: trained.
        lr: learning rate.
        accum_steps: batches per step.

    Raises:
        ValueError: unknown, a setting that it cannot apply, or a step that fails.
    """
    name = t.optimizer
    options: dict[str, Any] = {}
    try:
        kind = resolve_optimizer(name)
    except KeyError as error:
        raise ValueError(f"TrainingConfig.optimizer: {error.args[0]}") from None
    if accepts(name, "lr"):
        options["lr"] = lr
    if accepts(name, "weight_decay"):
        options["weight_decay"] = t.weight_decay
    elif t.weight_decay:
        raise ValueError(
            f"TrainingConfig.weight_decay: {t.weight_decay}, but {name} takes no weight decay; "
            "use 0"
        )
    if kind is torch.optim.SGD and not preset_arguments(name):
        options["momentum"] = t.momentum
    if kind in ADAM_FAMILY:
        options["betas"] = (t.adam_beta1, t.adam_beta2)
    optimizer = make_optimizer(name, parameters, fuse=False, **options)
    needs = prepare_optimizer(optimizer)
    if needs.closure and accum_steps > 1:
        raise ValueError(
            f"accum_steps {accum_steps}: {name} evaluates the loss within its step, of one batch "
            "alone; use 1"
        )
    return optimizer


def check_optimizer(t: OptimizerSettings, *, lr: float, accum_steps: int) -> Needs:
    """Try the configured optimizer on a few numbers, before anything is written.

    Raises:
        ValueError: as ``build_optimizer``.
    """
    toy = [nn.Parameter(torch.linspace(-1.0, 1.0, 6).view(2, 3)), nn.Parameter(torch.ones(3))]
    return needs_of(build_optimizer(t, toy, lr=lr, accum_steps=accum_steps))


class SteppedModule(lightning.LightningModule):
    """A module that is stepped, evaluated and saved as its optimizer needs it.

    Attributes:
        optimizer: of the training; None before it.
        last_output: of the newest evaluation that was logged.
        first: of an evaluation that is repeated, what the first one returned.
    """

    def __init__(self) -> None:
        super().__init__()
        self.optimizer: torch.optim.Optimizer | None = None
        self.first: dict[str, Tensor] | None = None
        self.last_output: dict[str, Tensor] = {}
        self._evaluating: contextlib.ExitStack | None = None
        self._loaded: dict[str, Any] | None = None

    @property
    def needs(self) -> Needs:
        """What the optimizer needs."""
        return needs_of(self.optimizer)

    def evaluated(self) -> contextlib.AbstractContextManager[None]:
        """Return a context within which the weights are those to evaluate."""
        return evaluated_weights(self, self.optimizer)

    def finish_training(self) -> None:
        """Keep the weights to evaluate."""
        keep_evaluated_weights(self, self.optimizer)

    # --- a step ---

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None
    ) -> None:
        """Step once; Lightning's closure computes loss, gradient and clipping."""
        assert self.optimizer is not None  # configured
        stepping = _Stepping(self, self.optimizer)
        self.trainer.strategy.optimizer_step(stepping, optimizer_closure)  # type: ignore[arg-type] # steps and has groups
        if self.needs.hook:
            self.optimizer.after_step(self.global_step + 1, stepping.again)  # type: ignore[attr-defined] # `hook` says so

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Compute the gradient, so that it can be differentiated again where that is needed."""
        kwargs["create_graph"] = self.needs.create_graph
        loss.backward(*args, **kwargs)
        if self.needs.contiguous:
            make_contiguous(list(self.parameters()))

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Give the model the weights to train."""
        if self.needs.switches and self.optimizer is not None:
            self.optimizer.train()  # type: ignore[attr-defined] # `switches` says so

    def on_validation_start(self) -> None:
        """Give the model the weights to evaluate."""
        self._evaluating = contextlib.ExitStack()
        self._evaluating.enter_context(self.evaluated())

    def on_validation_end(self) -> None:
        """Go back to exactly the weights before."""
        if self._evaluating is not None:
            self._evaluating.close()
            self._evaluating = None

    # --- checkpoints; those of torch's own classes are Lightning's ---

    def save_training(self, checkpoint: dict[str, Any]) -> None:
        """Let a checkpoint hold all that the optimizer remembers."""
        if self.optimizer is None or is_ordinary(self.optimizer):
            return
        with self._training_weights():
            weights, training = weights_to_save(self, self.optimizer)
            state = {**training, "optimizer": optimizer_state(self.optimizer)}
        checkpoint |= {"state_dict": weights, "optimizer_states": []}
        checkpoint["training"] = {**state, "rng": capture_rng(self.device)}

    def load_training(self, checkpoint: dict[str, Any]) -> None:
        """Take over what ``save_training`` saved, when training starts."""
        self._loaded = checkpoint.get("training")

    def on_train_start(self) -> None:
        """Go back to where the checkpoint was saved.

        Raises:
            ValueError: several processes, and an optimizer that needs a process alone.
        """
        assert self.optimizer is not None  # configured
        if self.trainer.world_size > 1:
            check_shared(self.optimizer)
        loaded, self._loaded = self._loaded, None
        if loaded is not None:
            load_training_weights(self, loaded)
            load_optimizer(self.optimizer, loaded["optimizer"])
            restore_rng(loaded["rng"], self.device)

    @contextlib.contextmanager
    def _training_weights(self) -> Iterator[None]:
        """Leave a validation's weights, where a checkpoint is saved within one."""
        inside = self._evaluating is not None
        self.on_validation_end()
        try:
            yield
        finally:
            if inside:
                self.on_validation_start()


class _Stepping:
    """Stands for the optimizer where Lightning calls ``step(closure)``."""

    def __init__(self, module: SteppedModule, optimizer: torch.optim.Optimizer) -> None:
        self.module, self.optimizer = module, optimizer
        self.param_groups = optimizer.param_groups
        self.closure: Callable[[], Any] = _not_given
        self.rng: dict[str, Any] = {}

    def step(self, closure: Callable[[], Any]) -> None:
        """Step once."""
        module, needs = self.module, self.module.needs
        if not (needs.closure or needs.hook):
            take_step(self.optimizer, needs, closure, closure)
        else:
            self.closure, self.rng = closure, capture_rng(module.device)
            take_step(self.optimizer, needs, closure, self.again)
        if needs.create_graph:
            for p in module.parameters():
                p.grad = None if p.grad is None else p.grad.detach()

    def again(self) -> Any:
        """Evaluate the batch once more, unseen by the logs."""
        module = self.module
        module.first = module.last_output
        try:
            with repeating(module, self.rng):
                return self.closure()
        finally:
            module.first = None


def _not_given() -> None:
    """Stands for a closure before a step."""
