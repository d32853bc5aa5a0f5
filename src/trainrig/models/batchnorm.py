"""Batch normalisation whose sums are right in every memory layout, and the modules that use it.

``batch_norm`` and ``normalise`` are the two functions; ``BatchNorm2d`` keeps torch's running
statistics and ``DebiasedBatchNorm`` Haiku's. In training both modules normalise by the statistics
of the batch, that of all processes where several train one run.

Legend: N images, C channels, H, W pixels, R packed runs; n = N H W.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 - torch's customary name
from torch import Tensor, nn

from trainrig.distributed import Mean, together
from trainrig.models import channels
from trainrig.processes import process_count

EPS = 1e-5
DECAY = 0.9
#: With this momentum the fused kernel's "running" rows become the batch's own statistics, computed
#: on the way; its variance is the unbiased one.
NEWEST_ALONE = 1.0
PIXELS = (0, 2, 3)  # the axes that statistics go over


def batch_norm(
    x: Tensor, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalise (N, C, H, W) by its own statistics, then scale and shift.

    On a CPU, mean, variance and the gradients of weight and bias are within 2e-6 relative of
    float64 in any memory layout and with any number of threads. In float64, and on other devices,
    this is torch's own function.

    Returns:
        The normalised values, and the batch's mean and biased variance (C,), which are constants
        to autograd.

    Raises:
        ValueError: there is one value per channel, which has no variance.
    """
    count = x.numel() // x.shape[1] * process_count()
    if count == 1:
        shape = tuple(x.shape)
        raise ValueError(f"batch_norm: {shape} has one value per channel; at least 2 are needed")
    if together() or (_is_ours(x) and _transformed(x, weight, bias)):
        mean, variance = _differentiable_statistics(x)
        y = _differentiable(x, mean, variance, weight, bias, eps)
        return y, mean.detach().to(weight.dtype), variance.detach().to(weight.dtype)
    if _is_ours(x):
        y, mean, variance = _normalise(x.float(), weight, bias, None, None, eps)
        return y.to(x.dtype), mean.to(weight.dtype), variance.to(weight.dtype)
    mean, variance = torch.zeros_like(weight.detach()), torch.zeros_like(weight.detach())
    y = F.batch_norm(x, mean, variance, weight, bias, True, NEWEST_ALONE, eps)
    return y, mean, variance * ((count - 1) / count)


def normalise(
    x: Tensor, mean: Tensor, variance: Tensor, weight: Tensor, bias: Tensor, eps: float
) -> Tensor:
    """Normalise (N, C, H, W) by constant statistics (C,), then scale and shift.

    The gradients of weight and bias are as exact as those of ``batch_norm``.
    """
    if _is_ours(x) and _transformed(x, weight, bias):
        return _differentiable(x, mean, variance, weight, bias, eps)
    if _is_ours(x):
        return _normalise(x.float(), weight, bias, mean, variance, eps)[0].to(x.dtype)
    return F.batch_norm(x, mean, variance, weight, bias, False, 0.0, eps)


def _is_ours(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.dtype != torch.float64


def _is_fused(x: Tensor) -> bool:
    """Say whether torch's own kernel does all: normalise, and keep running statistics."""
    return x.device.type != "cpu" and not together() and not _wrapped(x)


def _wrapped(x: Tensor) -> bool:
    """Say whether ``torch.func`` looks on, which has no rule for every operator in place."""
    if torch.compiler.is_compiling():
        return False
    return bool(torch._C._functorch.is_functorch_wrapped_tensor(x))


def _transformed(*tensors: Tensor) -> bool:
    """Say whether ``torch.func`` differentiates, which knows torch's own operators only."""
    if torch.compiler.is_compiling():
        return False
    functorch = torch._C._functorch
    for tensor in tensors:
        while functorch.is_functorch_wrapped_tensor(tensor):
            if functorch.is_gradtrackingtensor(tensor):
                return True
            tensor = functorch.get_unwrapped(tensor)
    return False


@torch.library.custom_op("trainrig::normalise", mutates_args=())
def _normalise(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    mean: Tensor | None,
    variance: Tensor | None,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the normalised values, and the mean and biased variance used, in float64.

    Without ``mean`` and ``variance`` they are the batch's. An operator, since a compiler would
    unroll the loops over blocks.
    """
    statistics = None if mean is None or variance is None else (mean, variance)
    y, mean, variance = channels.normalise(channels.dense(x), weight, bias, eps, statistics)
    return y, mean.clone(), variance.clone()  # an operator's results are no views of its arguments


@_normalise.register_fake
def _(x: Tensor, weight: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    statistics = weight.new_empty(weight.shape, dtype=torch.float64)
    return torch.empty_like(channels.dense(x)), statistics, torch.empty_like(statistics)


@_normalise.register_vmap
def _(info: Any, in_dims: tuple[int | None, ...], *arguments: Any) -> tuple[Any, Any]:
    """Normalise the channels of all runs at once."""
    runs = info.batch_size

    def stacked(tensor: Tensor, dim: int | None) -> Tensor:
        return tensor.expand(runs, *tensor.shape) if dim is None else tensor.movedim(dim, 0)

    x = stacked(arguments[0], in_dims[0]).transpose(0, 1).flatten(1, 2)  # (N, R C, H, W)
    by_channel = [
        None if tensor is None else stacked(tensor, dim).flatten()
        for tensor, dim in zip(arguments[1:5], in_dims[1:5], strict=True)
    ]
    y, mean, variance = _normalise(x, *by_channel, arguments[5])
    shape = (runs, -1)
    return (y.unflatten(1, shape), mean.view(shape), variance.view(shape)), (1, 0, 0)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    x, weight, _, mean, _, ctx.eps = inputs
    ctx.training = mean is None
    ctx.mark_non_differentiable(*output[1:])
    ctx.save_for_backward(x, weight, *output[1:])


def _differentiate(ctx: Any, gradient: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
    # Where the gradient itself will be differentiated, it must consist of torch's own operators.
    backward: Any = _differentiable_backward if torch.is_grad_enabled() else _normalise_backward
    found = backward(gradient, *ctx.saved_tensors, ctx.eps, ctx.training)
    return (*found, None, None, None)


_normalise.register_autograd(_differentiate, setup_context=_remember)


@torch.library.custom_op("trainrig::normalise_backward", mutates_args=())
def _normalise_backward(
    gradient: Tensor,
    x: Tensor,
    weight: Tensor,
    mean: Tensor,
    variance: Tensor,
    eps: float,
    training: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of x, weight and bias; mean and variance in float64."""
    x = channels.dense(x)
    gradient = channels.same_layout(gradient, x)
    return channels.differentiate(gradient, x, weight, (mean, variance), eps, training)


@_normalise_backward.register_fake
def _(gradient: Tensor, x: Tensor, weight: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(channels.dense(x)), torch.empty_like(weight), torch.empty_like(weight)


def _differentiable_statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and biased variance in float64, over all processes, by torch's own operators."""
    average = Mean.apply if together() else Tensor.contiguous
    mean = average(x.mean(PIXELS, dtype=torch.float64))
    return mean, average(_centred(x, mean).square().mean(PIXELS, dtype=torch.float64))


def _differentiable(
    x: Tensor, mean: Tensor, variance: Tensor, weight: Tensor, bias: Tensor, eps: float
) -> Tensor:
    """Return what ``_normalise`` does, by torch's own operators."""
    scale = weight * torch.rsqrt(variance + eps)
    return _centred(x, mean) * _per_channel(scale, x) + _per_channel(bias, x)


def _differentiable_backward(
    gradient: Tensor,
    x: Tensor,
    weight: Tensor,
    mean: Tensor,
    variance: Tensor,
    eps: float,
    training: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return what ``_normalise_backward`` does, by torch's own operators."""
    if training:
        mean, variance = _differentiable_statistics(x)
    scale = torch.rsqrt(variance + eps)
    normalised = _centred(x, mean) * _per_channel(scale, x)
    dots = (gradient * normalised).sum(PIXELS, dtype=torch.float64)
    sums = gradient.sum(PIXELS, dtype=torch.float64)
    dx = gradient
    if training:
        n = x.numel() // x.shape[1]
        dx = dx - _per_channel(sums / n, x) - normalised * _per_channel(dots / n, x)
    dx = dx * _per_channel(weight * scale, x)
    return dx, dots.to(weight.dtype), sums.to(weight.dtype)


def _centred(x: Tensor, mean: Tensor) -> Tensor:
    """Return ``x - mean``, also what rounding the mean to the type of ``x`` would take from it."""
    near = mean.detach().to(x.dtype)
    return (x - _per_channel(near, x)) - _per_channel(mean - near, x)


def _per_channel(values: Tensor, like: Tensor) -> Tensor:
    return values.to(like.dtype)[:, None, None]


class BatchNorm2d(nn.BatchNorm2d):
    """``torch.nn.BatchNorm2d`` with weight, bias and running statistics, computed by this module.

    Args:
        channels: C.
        eps: added to the variance.
        momentum: share of the newest batch in the running statistics; ``None`` averages all
            batches since ``reset_running_stats``.
    """

    momentum: float | None
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, channels: int, *, eps: float = EPS, momentum: float = 0.1) -> None:
        super().__init__(channels, eps=eps, momentum=momentum)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (N, C, H, W) over N, H and W; update the running statistics in training."""
        if not self.training:
            average = self.running_mean, self.running_var
            return normalise(x, *average, self.weight, self.bias, self.eps)
        if self.momentum is not None and _is_fused(x):
            self.num_batches_tracked.add_(1)
            average = self.running_mean, self.running_var
            return F.batch_norm(x, *average, self.weight, self.bias, True, self.momentum, self.eps)
        y, mean, variance = batch_norm(x, self.weight, self.bias, self.eps)
        count = x.numel() // x.shape[1] * process_count()
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            share: float | Tensor | None = self.momentum
            if share is None:
                share = self.num_batches_tracked.to(mean.dtype).reciprocal()
            unbiased = variance * (count / (count - 1))
            for running, newest in ((self.running_mean, mean), (self.running_var, unbiased)):
                running.mul_(1 - share).add_(newest * share)
        return y


class DebiasedBatchNorm(nn.Module):
    """Normalise (N, C, H, W) over N, H and W; running statistics are Haiku's moving averages.

    ``torch.nn.BatchNorm2d(momentum=0.1)`` differs in three ways: it starts at mean 0 and variance
    1, never debiases, and keeps the unbiased variance. Here, with decay 0.9 and after n updates::

        hidden  <- 0.9 hidden + 0.1 (batch mean, biased batch variance)
        average <- hidden / (1 - 0.9**n)

    Evaluation normalises with ``average``. Buffers: ``hidden`` and ``average`` (2, C), row 0 the
    mean and row 1 the variance, and ``counter``, the number of updates (int64).

    Args:
        channels: C.
        zero_scale: start the scale at 0 instead of 1 (last norm of a residual branch).

    Attributes:
        collected: where a batch's statistics wait, if a larger model calls ``update_averages`` for
            all its norms at once; None updates at every call.
    """

    hidden: Tensor
    average: Tensor
    counter: Tensor
    newest: Tensor

    def __init__(self, channels: int, *, zero_scale: bool = False) -> None:
        super().__init__()
        start = torch.zeros if zero_scale else torch.ones
        self.weight = nn.Parameter(start(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("hidden", torch.zeros(2, channels))
        self.register_buffer("average", torch.zeros(2, channels))
        self.register_buffer("counter", torch.zeros((), dtype=torch.int64))
        # Where a fused kernel leaves the batch's statistics.
        self.register_buffer("newest", torch.zeros(2, channels), persistent=False)
        self.collected: list[BatchStatistics] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Normalise, and update the averages in training mode."""
        if not self.training:
            mean, variance = self.average
            return normalise(x, mean, variance, self.weight, self.bias, EPS)
        count = x.numel() // x.shape[1]
        if _is_fused(x) and count > 1:
            mean, variance = self.newest
            y = F.batch_norm(x, mean, variance, self.weight, self.bias, True, NEWEST_ALONE, EPS)
            found = BatchStatistics(self, mean, variance, (count - 1) / count)
        else:
            y, mean, variance = batch_norm(x, self.weight, self.bias, EPS)
            found = BatchStatistics(self, mean, variance, 1.0)
        if self.collected is None:
            update_averages([found])
        else:
            self.collected.append(found)
        return y


class BatchStatistics(NamedTuple):
    """A batch's mean and variance (C,) for a norm; times ``share`` the variance is biased."""

    norm: DebiasedBatchNorm
    mean: Tensor
    variance: Tensor
    share: float


@torch.no_grad()
def update_averages(found: Sequence[BatchStatistics]) -> None:
    """Take the statistics of one batch into the averages of norms that have met the same batches.

    A few kernels for all norms of a model; each value is computed as if its norm were alone.
    """
    if not found:
        return
    norms = [one.norm for one in found]
    if _wrapped(found[0].mean):  # torch.func has no rules for operators on lists
        for norm, mean, variance, _ in found:
            norm.hidden.mul_(DECAY)
            norm.hidden[0].add_(mean, alpha=1.0 - DECAY)
            norm.hidden[1].add_(variance, alpha=1.0 - DECAY)
            norm.counter.add_(1)
            norm.average.copy_(norm.hidden / (1.0 - DECAY**norm.counter))
        return
    variances = [one.variance for one in found]
    if any(one.share != 1.0 for one in found):  # not in place: autograd keeps what a kernel wrote
        variances = [*torch._foreach_mul(variances, [one.share for one in found])]
    hidden = [norm.hidden for norm in norms]
    torch._foreach_mul_(hidden, DECAY)
    rows = [row for both in hidden for row in both]
    means = [one.mean for one in found]
    newest = [values for both in zip(means, variances, strict=True) for values in both]
    torch._foreach_add_(rows, newest, alpha=1.0 - DECAY)
    torch._foreach_add_([norm.counter for norm in norms], 1)
    averages = torch._foreach_div(hidden, 1.0 - DECAY ** norms[0].counter)
    torch._foreach_copy_([norm.average for norm in norms], averages)


def implementation(model: nn.Module) -> str | None:
    """Return what computes the batch normalisation of a model in float32 on a CPU.

    Returns:
        ``compiled`` or ``operators`` (torch's), which differ in the last bits; None for a model
        without one, or on another device.
    """
    kinds = BatchNorm2d, DebiasedBatchNorm
    weights = [module.weight for module in model.modules() if isinstance(module, kinds)]
    if not any(_is_ours(weight) for weight in weights):
        return None
    return "operators" if together() or channels.compiled() is None else "compiled"
