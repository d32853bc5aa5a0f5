"""Losses and gradients of a chain of dense layers, for many networks on the same batches.

What a run costs beyond its matrix products is mostly memory: fresh arrays for activations and
gradients in every step, and updates that pass over them several times. Here all networks share one
set of such arrays, so that they stay in the cache, and input columns that are zero in the whole
batch (a third of MNIST's pixels) are left out of the first layer, where their gradient is zero.

Stacking the weights of all networks into larger products was tried and does not help on one CPU
thread: a product of one network's size already runs near the processor's peak, and the stacked
weights no longer fit in its cache.

Legend: B batch, D inputs, A inputs of which some value is not zero, H units, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from deepobs.pytorch.datasets.loaders import Batch
from deepobs.pytorch.testproblems import TestProblem
from deepobs.pytorch.testproblems._families import Classification, batch_accuracy
from deepobs.pytorch.testproblems._layers import Dense

#: Largest relative difference to the problem's own loss; else it is not this chain of layers.
TOLERANCE = 1e-4


@dataclass(frozen=True, slots=True)
class SharedBatch:
    """A batch as the first layer needs it.

    Attributes:
        active: the images (B, A) without dead columns.
        columns: the numbers (A,) of the columns that are left.
        labels: (B,).
    """

    active: Tensor
    columns: Tensor
    labels: Tensor

    @classmethod
    def of(cls, batch: Batch) -> SharedBatch:
        """Prepare a batch of images (B, ...) and labels (B,)."""
        x = batch[0].flatten(1)
        columns = (x != 0).any(0).nonzero()[:, 0]
        return cls(x.index_select(1, columns), columns, batch[1])


class DenseChain:
    """Shared arrays for networks of dense layers with ReLU between them and cross-entropy.

    Args:
        problem: one of the networks' problems, to take the shapes from.

    Raises:
        ValueError: the problem is no such chain.
    """

    def __init__(self, problem: TestProblem) -> None:
        layers = dense_layers(problem)
        first = layers[0].weight
        self._rows = first.new_empty(first.shape[1], first.shape[0])
        make = first.new_empty
        self._hidden = [make(problem.batch_size, layer.out_features) for layer in layers]
        self._deltas = [make(problem.batch_size, layer.out_features) for layer in layers]
        self._gradients = [torch.zeros_like(parameter) for parameter in parameters_of(layers)]
        self._gradients[0] = torch.zeros_like(self._rows)

    def adopt(self, problem: TestProblem, optimizer: torch.optim.Optimizer) -> list[Dense]:
        """Return a network's layers, its first kernel now stored by input, with its statistics.

        Its gradients are the shared arrays: they hold what the last call of ``gradients`` left.
        """
        layers = dense_layers(problem)
        weight = layers[0].weight
        weight.data = weight.data.t().contiguous().t()
        state = optimizer.state.get(weight, {})
        for key, value in state.items():
            if isinstance(value, Tensor) and value.shape == weight.shape:
                state[key] = value.t().contiguous().t()
        shared = [self._gradients[0].t(), *self._gradients[1:]]
        for parameter, gradient in zip(parameters_of(layers), shared, strict=True):
            parameter.grad = gradient
        return layers

    def forward(self, layers: Sequence[Dense], batch: SharedBatch) -> Tensor:
        """Return logits (B, K), overwritten by the next call."""
        rows = self._rows[: len(batch.columns)]  # (A, H)
        torch.index_select(layers[0].weight.data.t(), 0, batch.columns, out=rows)
        hidden = torch.addmm(layers[0].bias.data, batch.active, rows, out=self._hidden[0])
        for layer, out in zip(layers[1:], self._hidden[1:], strict=True):
            hidden = torch.addmm(layer.bias.data, hidden.relu_(), layer.weight.data.t(), out=out)
        return hidden

    def gradients(self, layers: Sequence[Dense], batch: SharedBatch) -> Tensor:
        """Return the mean loss; the gradients lie in the shared arrays, as each ``.grad``."""
        logits = self.forward(layers, batch)
        logs = logits.log_softmax(1)
        delta = logs.exp()
        picked = batch.labels[:, None]
        delta.scatter_add_(1, picked, torch.full_like(picked, -1, dtype=delta.dtype))
        delta.div_(len(delta))
        for i in range(len(layers) - 1, 0, -1):
            below = self._hidden[i - 1]
            torch.mm(delta.t(), below, out=self._gradients[2 * i])
            torch.sum(delta, 0, out=self._gradients[2 * i + 1])
            torch.mm(delta, layers[i].weight.data, out=self._deltas[i - 1])
            delta = torch.ops.aten.threshold_backward(self._deltas[i - 1], below, 0)
        rows = self._rows[: len(batch.columns)]
        torch.mm(batch.active.t(), delta, out=rows)
        self._gradients[0].zero_().index_copy_(0, batch.columns, rows)
        torch.sum(delta, 0, out=self._gradients[1])
        return logs.gather(1, picked).mean().neg()

    def loss_and_accuracy(
        self, layers: Sequence[Dense], batch: SharedBatch
    ) -> tuple[Tensor, Tensor]:
        """Return the mean loss and the accuracy of one batch."""
        logits = self.forward(layers, batch)
        loss = nn.functional.cross_entropy(logits, batch.labels)
        return loss, batch_accuracy(logits, batch.labels)

    def verify(self, problem: TestProblem, batch: Batch) -> None:
        """Compare with the problem's own loss.

        Raises:
            ValueError: another loss; the network is not the chain that its layers suggest.
        """
        with torch.no_grad():
            theirs = problem.objective(batch)
            ours, _ = self.loss_and_accuracy(dense_layers(problem), SharedBatch.of(batch))
        if not torch.isclose(ours, theirs, rtol=TOLERANCE, atol=TOLERANCE):
            raise ValueError(
                f"{type(problem).__name__}: its loss is {float(theirs):g} and that of its layers "
                f"in a chain {float(ours):g}; run it without packing"
            )


def parameters_of(layers: Sequence[Dense]) -> list[nn.Parameter]:
    """Return weight and bias of each layer, in the network's order."""
    return [parameter for layer in layers for parameter in (layer.weight, layer.bias)]


def dense_layers(problem: TestProblem) -> list[Dense]:
    """Return the layers of a network that is a chain of dense ones.

    Raises:
        ValueError: another kind of problem or network, or one with an L2 term.
    """
    layers = list(problem.net.children())
    chain = all(isinstance(layer, Dense) for layer in layers)
    if not chain or not isinstance(problem, Classification) or problem.weight_decay:
        raise ValueError(
            f"{type(problem).__name__}: runs of this problem cannot be packed; accepted are "
            "dense networks without L2 term (mnist_mlp, fmnist_mlp, mnist_logreg, fmnist_logreg)"
        )
    return layers
