"""Losses and gradients of a chain of dense layers, for many networks on the same batches.

What a run costs beyond its matrix products is mostly memory: fresh arrays for activations and
gradients in every step, and updates that pass over them several times. Here all networks share one
set of such arrays, so that they stay in the cache. Where most pixels of a batch are zero (four
fifths of MNIST's), the first layer's two products leave them out; the list of the others is made
once for all networks.

Stacking the weights of all networks into larger products was tried and does not help on one CPU
thread: a product of one network's size already runs near the processor's peak, and the stacked
weights no longer fit in its cache.

Legend: B batch, D inputs, H units, K classes, V values that are not zero.
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
#: Share of values other than zero below which products that skip the zeros are the faster ones.
SPARSE = 1 / 3


@dataclass(frozen=True, slots=True)
class SparseMatrix:
    """A matrix (M, N) as its values that are not zero, row by row.

    Attributes:
        columns: of the values (V,).
        starts: of the rows among the values (M + 1,).
        values: (V,).
    """

    columns: Tensor
    starts: Tensor
    values: Tensor

    @classmethod
    def of(cls, dense: Tensor) -> SparseMatrix:
        """Convert a matrix (M, N)."""
        there = dense != 0
        starts = nn.functional.pad(there.sum(1).cumsum(0), (1, 0)).int()
        return cls(there.nonzero()[:, 1].int(), starts, dense[there])

    def __matmul__(self, right: Tensor) -> Tensor:
        """Multiply with a matrix (N, H) that is contiguous.

        A row of the product is a weighted sum of rows, for which torch's summing of embeddings has
        a vectorised kernel; that of its own sparse matrices is three times slower.
        """
        return nn.functional.embedding_bag(
            self.columns,
            right,
            self.starts,
            mode="sum",
            per_sample_weights=self.values,
            include_last_offset=True,
        )


@dataclass(frozen=True, slots=True)
class SharedBatch:
    """A batch as the first layer needs it.

    Attributes:
        by_example: the images (B, D).
        by_input: the same transposed (D, B).
        labels: (B,).
    """

    by_example: Tensor | SparseMatrix
    by_input: Tensor | SparseMatrix
    labels: Tensor

    @classmethod
    def of(cls, batch: Batch) -> SharedBatch:
        """Prepare a batch of images (B, ...) and labels (B,)."""
        x = batch[0].flatten(1)
        if int(x.count_nonzero()) >= SPARSE * x.numel():
            return cls(x, x.t(), batch[1])
        return cls(SparseMatrix.of(x), SparseMatrix.of(x.t()), batch[1])


class DenseChain:
    """Shared arrays for networks of dense layers with ReLU between them and cross-entropy.

    Args:
        problem: one of the networks' problems, to take the shapes from.

    Raises:
        ValueError: the problem is no such chain.
    """

    def __init__(self, problem: TestProblem) -> None:
        layers = dense_layers(problem)
        make = layers[0].weight.new_empty
        shapes = [(problem.batch_size, layer.out_features) for layer in layers]
        self._outputs = [make(shape) for shape in shapes[1:]]
        self._deltas = [make(shape) for shape in shapes[:-1]]
        self._gradients = [torch.empty_like(p) for p in parameters_of(layers)[1:]]

    def adopt(self, problem: TestProblem, optimizer: torch.optim.Optimizer) -> list[Dense]:
        """Return a network's layers, its first kernel now stored by input, with its statistics.

        Its other gradients lie where the next call of ``gradients``, for any network, puts them.
        """
        layers = dense_layers(problem)
        weight = layers[0].weight
        weight.data = weight.data.t().contiguous().t()
        state = optimizer.state.get(weight, {})
        for key, value in state.items():
            if isinstance(value, Tensor) and value.shape == weight.shape:
                state[key] = value.t().contiguous().t()
        for parameter, gradient in zip(parameters_of(layers)[1:], self._gradients, strict=True):
            parameter.grad = gradient
        return layers

    def forward(self, layers: Sequence[Dense], batch: SharedBatch) -> list[Tensor]:
        """Return each layer's outputs (B, H), the logits last; the next call overwrites them."""
        first = (batch.by_example @ layers[0].weight.data.t()).add_(layers[0].bias.data)
        outputs = [first]
        for layer, out in zip(layers[1:], self._outputs, strict=True):
            below, kernel = outputs[-1].relu_(), layer.weight.data.t()
            outputs.append(torch.addmm(layer.bias.data, below, kernel, out=out))
        return outputs

    def gradients(self, layers: Sequence[Dense], batch: SharedBatch) -> Tensor:
        """Return the mean loss; the gradients are each parameter's ``.grad``."""
        outputs = self.forward(layers, batch)
        logs = outputs[-1].log_softmax(1)
        delta = logs.exp()
        picked = batch.labels[:, None]
        delta.scatter_add_(1, picked, torch.full_like(picked, -1, dtype=delta.dtype))
        delta.div_(len(delta))
        for i in range(len(layers) - 1, 0, -1):
            below = outputs[i - 1]
            torch.mm(delta.t(), below, out=self._gradients[2 * i - 1])
            torch.sum(delta, 0, out=self._gradients[2 * i])
            torch.mm(delta, layers[i].weight.data, out=self._deltas[i - 1])
            delta = torch.ops.aten.threshold_backward(self._deltas[i - 1], below, 0)
        layers[0].weight.grad = (batch.by_input @ delta).t()
        torch.sum(delta, 0, out=self._gradients[0])
        return logs.gather(1, picked).mean().neg()

    def update(self, layers: Sequence[Dense], optimizer: torch.optim.Optimizer) -> None:
        """Perform the optimizer's step on the gradients.

        Torch's fused updates treat every value alone but copy what is not stored row by row, so
        they are shown the first kernel as it lies in memory.
        """
        if not optimizer.param_groups[0].get("fused"):
            optimizer.step()
            return
        _transpose(layers[0].weight, optimizer)
        optimizer.step()
        _transpose(layers[0].weight, optimizer)

    def loss_and_accuracy(
        self, layers: Sequence[Dense], batch: SharedBatch
    ) -> tuple[Tensor, Tensor]:
        """Return the mean loss and the accuracy of one batch."""
        logits = self.forward(layers, batch)[-1]
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


def _transpose(weight: nn.Parameter, optimizer: torch.optim.Optimizer) -> None:
    """Transpose a matrix, its gradient and its statistics, as views."""
    shape, gradient, weight.grad = weight.shape, weight.grad, None
    assert gradient is not None  # an update follows the gradients
    weight.data = weight.data.t()
    weight.grad = gradient.t()
    state = optimizer.state.get(weight, {})
    for key, value in state.items():
        if isinstance(value, Tensor) and value.shape == shape:
            state[key] = value.t()


def parameters_of(layers: Sequence[Dense]) -> list[nn.Parameter]:
    """Return weight and bias of each layer, in the network's order."""
    return [parameter for layer in layers for parameter in (layer.weight, layer.bias)]


def dense_layers(problem: TestProblem) -> list[Dense]:
    """Return the layers of a network that is a chain of dense ones.

    Raises:
        ValueError: another kind of problem or network, or one with an L2 term.
    """
    children = list(problem.net.children())
    layers = [child for child in children if isinstance(child, Dense)]
    if layers != children or not isinstance(problem, Classification) or problem.weight_decay:
        raise ValueError(
            f"{type(problem).__name__}: runs of this problem cannot be packed; accepted are "
            "dense networks without L2 term (mnist_mlp, fmnist_mlp, mnist_logreg, fmnist_logreg)"
        )
    return layers
