"""The contract of a test problem: data, network, per-example losses, L2 over kernels.

Legend: B batch. A problem's objective on a batch is ``mean(losses) + regulariser``, in training and
in evaluation; every logged loss contains the regulariser, as in the published line.
"""

from __future__ import annotations

import abc
import logging
import math
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from deepobs.pytorch import config
from deepobs.pytorch.datasets.dataset import DataSet
from deepobs.pytorch.datasets.loaders import Batch
from trainrig.seeding import PortableDraws, capture_rng
from trainrig.updates import repeating

logger = logging.getLogger(__name__)
LossAndAccuracy = tuple[Tensor, Tensor | None]
PHASES = ("train", "train_eval", "valid", "test")
REDUCTIONS = ("mean", "sum", "none")


class TestProblem(abc.ABC):
    """Base of all test problems. Call ``set_up`` before anything else.

    Attributes:
        data: the data set.
        net: the network, also as ``model``.
        phase: ``train``, ``train_eval``, ``valid`` or ``test``.
        regularization_groups: ``{l2 factor: [parameters]}``.
        weight_decay: the L2 factor in force (0.0 where the problem has none).

    Args:
        batch_size: examples per batch.
        weight_decay: L2 factor over the kernels; None takes the problem's default.

    Raises:
        ValueError: weight decay negative or not finite.
    """

    __test__ = False  # not a test class, whatever its name says
    #: L2 factor of the published runs; None for problems without regulariser.
    default_weight_decay: ClassVar[float | None] = None
    has_accuracy: ClassVar[bool] = True

    data: DataSet
    net: nn.Module

    def __init__(self, batch_size: int, weight_decay: float | None = None) -> None:
        if weight_decay is not None and (
            isinstance(weight_decay, bool) or not math.isfinite(weight_decay) or weight_decay < 0
        ):
            raise ValueError(
                f"{type(self).__name__}: weight_decay is {weight_decay!r}; "
                "a finite number of at least 0 is expected"
            )
        if weight_decay and self.default_weight_decay is None:
            logger.warning(
                "%s has no L2 regulariser; weight_decay %g has no effect",
                type(self).__name__,
                weight_decay,
            )
        self.batch_size = batch_size
        chosen = self.default_weight_decay if weight_decay is None else float(weight_decay)
        self.weight_decay = float(chosen or 0.0) if self.default_weight_decay is not None else 0.0
        self.l2_in_loss = True
        self.phase = "train"
        self.regularization_groups: dict[float, list[nn.Parameter]] = {}
        self._pass: Iterator[Batch] | None = None

    # --- to be written by a problem ------------------------------------------------------------

    @abc.abstractmethod
    def make_data(self) -> DataSet:
        """Return the data set."""

    @abc.abstractmethod
    def make_net(self) -> nn.Module:
        """Return the freshly initialised network, on the CPU."""

    @abc.abstractmethod
    def forward_losses(self, batch: Batch, *, accuracy: bool) -> LossAndAccuracy:
        """Return per-example losses (B,), and the batch's accuracy where asked for and defined."""

    def regularized_parameters(self) -> list[nn.Parameter]:
        """Return the kernels that the L2 term covers."""
        return []

    # --- set-up and phases ----------------------------------------------------------------------

    def set_up(self) -> None:
        """Load the data and make the network on the configured device, in the configured type."""
        self.data = self.make_data()
        self.set_up_net()

    def set_up_net(self, device: str | torch.device | None = None) -> None:
        """Make the network alone, for comparisons on batches from elsewhere."""
        before = torch.get_default_dtype()
        torch.set_default_dtype(config.get_dtype())
        try:
            with PortableDraws():
                net = self.make_net()
        finally:
            torch.set_default_dtype(before)
        self.net = net.to(config.get_default_device() if device is None else device)
        kernels = self.regularized_parameters()
        self.regularization_groups = {self.weight_decay: kernels} if kernels else {}
        chosen = {id(kernel) for kernel in kernels}
        others = [p for p in self.net.parameters() if id(p) not in chosen]
        self.regularization_groups.setdefault(0.0, []).extend(others)
        self.begin("train", None)

    @property
    def model(self) -> nn.Module:
        """The network."""
        return self.net

    @property
    def train_loader(self) -> Any:
        """The training batches."""
        return self.data.train

    @property
    def test_loader(self) -> Any:
        """The test batches."""
        return self.data.test

    def train_init_op(self) -> None:
        """Begin a training pass."""
        self.begin("train", iter(self.data.train))

    def train_eval_init_op(self) -> None:
        """Begin an evaluation pass over training data."""
        self.begin("train_eval", iter(self.data.train_eval))

    def valid_init_op(self) -> None:
        """Begin a pass over the validation set.

        Raises:
            ValueError: there is none in the ``reference`` mode.
        """
        if self.data.valid is None:
            raise ValueError(
                f"{type(self).__name__}: the 'reference' mode has no validation set; "
                "use config.set_compat('fixed')"
            )
        self.begin("valid", iter(self.data.valid))

    def test_init_op(self) -> None:
        """Begin a pass over the test set."""
        self.begin("test", iter(self.data.test))

    def begin(self, phase: str, batches: Iterator[Batch] | None) -> None:
        """Enter a phase: network mode, source of batches, recurrent state reset."""
        if phase not in PHASES:
            raise ValueError(f"phase is {phase!r}; accepted: {', '.join(PHASES)}")
        self.phase, self._pass = phase, batches
        self.net.train(phase == "train")
        self.reset_state()

    def reset_state(self) -> None:  # noqa: B027 - most problems carry nothing
        """Forget what a pass carries from batch to batch (recurrent problems)."""

    def carried_state(self) -> Any:
        """Return what a pass carries from batch to batch, or None."""
        return None

    def restore_carried_state(self, state: Any) -> None:  # noqa: B027 - likewise
        """Undo ``carried_state``."""

    def next_batch(self) -> Batch:
        """Return the next batch of the present pass.

        Raises:
            StopIteration: the pass is over.
            ValueError: no pass was begun.
        """
        if self._pass is None:
            raise ValueError(f"{type(self).__name__}: no pass begun; call train_init_op() first")
        return next(self._pass)

    # --- losses ---------------------------------------------------------------------------------

    def objective(self, batch: Batch) -> Tensor:
        """Return ``mean(losses) + regulariser``, the scalar that training minimises."""
        losses, _ = self.forward_losses(batch, accuracy=False)
        return self._with_l2(losses.mean())

    def _with_l2(self, loss: Tensor) -> Tensor:
        if self.l2_in_loss and self.weight_decay:
            return loss + self.get_regularization_loss()
        return loss

    def get_regularization_loss(self) -> Tensor | float:
        """Return the sum over groups of ``0.5 * factor * |p|^2``."""
        total: Tensor | float = 0.0
        for factor, parameters in self.regularization_groups.items():
            if factor:
                squares = [p.square().sum() for p in parameters]  # pairwise sums, unlike dot
                total = total + 0.5 * factor * torch.stack(squares).sum()
        return total

    def get_batch_loss_and_accuracy(
        self,
        batch: Batch | None = None,
        reduction: str | None = None,
        add_regularization_if_available: bool | None = None,
    ) -> tuple[Tensor, Tensor | float]:
        """Return the loss and accuracy of a batch; evaluation phases run without gradients.

        Args:
            batch: None takes the next one of the pass.
            reduction: ``mean``, ``sum`` or ``none`` (losses (B,)). By default ``none`` for a given
                batch and ``mean`` for the pass's next one.
            add_regularization_if_available: by default only where the losses are reduced.

        Returns:
            The loss, and the accuracy (0.0 for problems without one).

        Raises:
            StopIteration: the pass is over.
        """
        return self._evaluation(batch, reduction, add_regularization_if_available)()

    def get_batch_loss_and_accuracy_func(
        self,
        batch: Batch | None = None,
        reduction: str | None = None,
        add_regularization_if_available: bool | None = None,
    ) -> Callable[[], tuple[Tensor, Tensor | float]]:
        """Return a function that evaluates one batch, any number of times.

        Later calls see the random numbers and the recurrent state of the first one and leave the
        running statistics of batch normalisation alone, so that equal parameters give equal losses:
        what line searches, LBFGS and SAM need. Arguments as in ``get_batch_loss_and_accuracy``.
        """
        return self._repeatable(self._evaluation(batch, reduction, add_regularization_if_available))

    def _evaluation(
        self, batch: Batch | None, reduction: str | None, add_l2: bool | None
    ) -> Callable[[], tuple[Tensor, Tensor | float]]:
        if reduction is None:
            reduction = "mean" if batch is None else "none"
        if reduction not in REDUCTIONS:
            raise ValueError(f"reduction is {reduction!r}; accepted: {', '.join(REDUCTIONS)}")
        if add_l2 is None:
            add_l2 = reduction != "none"
        batch = self.next_batch() if batch is None else batch

        def evaluate() -> tuple[Tensor, Tensor | float]:
            with torch.set_grad_enabled(self.phase == "train" and torch.is_grad_enabled()):
                loss, accuracy = self.forward_losses(batch, accuracy=self.has_accuracy)
                if reduction != "none":
                    loss = getattr(loss, reduction)()
                return (self._with_l2(loss) if add_l2 else loss), (
                    0.0 if accuracy is None else accuracy
                )

        return evaluate

    def _repeatable(self, evaluate: Callable[[], Any]) -> Callable[[], Any]:
        start: dict[str, Any] = {}

        def again() -> Any:
            if not start:
                device = next(self.net.parameters()).device
                start.update(rng=capture_rng(device), carried=self.carried_state())
                return evaluate()
            carried = self.carried_state()
            self.restore_carried_state(start["carried"])
            try:
                with repeating(self.net, start["rng"]):
                    return evaluate()
            finally:
                self.restore_carried_state(carried)

        return again

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return optimizer groups that carry the L2 factor as ``weight_decay``; biases get 0."""
        return [
            {"params": parameters, "weight_decay": factor}
            for factor, parameters in self.regularization_groups.items()
            if parameters
        ]
