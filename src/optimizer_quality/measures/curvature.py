"""The Hessian of the loss at a solution: largest eigenvalues and trace, without forming it.

H is that of the mean loss over a fixed set of images, with respect to all parameters, the network
in evaluation mode (BatchNorm uses its running statistics, so that the loss is a sum over images).

H depends on the scale of the weights, which the network's function may not: a convolution in front
of a BatchNorm can be scaled by c at will, and its block of H changes by 1 / c². So the curvature is
measured in relative coordinates as well, as ``D H D`` with a diagonal D (``COORDINATES``).
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainrig.seeding import PortableDraws

MatVec = Callable[[Tensor], Tensor]


class HessianOperator:
    """The product of H with a flat vector, by differentiating the gradient.

    ``H v = d(gᵀv)/dw``; B. Pearlmutter, "Fast Exact Multiplication by the Hessian", Neural
    Computation 6 (1994).

    Args:
        model: parameters of any shapes; D values in all.
        batches: the fixed images, (images, labels) each; the whole list is one product.
        criterion: mean loss over a batch.
    """

    def __init__(
        self,
        model: nn.Module,
        batches: Sequence[tuple[Tensor, Tensor]],
        criterion: Callable[[Tensor, Tensor], Tensor] = nn.functional.cross_entropy,
    ) -> None:
        self.model, self.batches, self.criterion = folded(model), batches, criterion
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.size = sum(p.numel() for p in self.parameters)
        self.n_images = sum(len(labels) for _, labels in batches)

    @property
    def like(self) -> Tensor:
        """A zero vector (D,) of the parameters' type, on their device."""
        return torch.cat([torch.zeros_like(p).reshape(-1) for p in self.parameters]).detach()

    def __call__(self, vector: Tensor) -> Tensor:
        """Return H v for a float vector (D,)."""
        return self.products(vector[None])[0]

    def products(self, vectors: Tensor) -> Tensor:
        """Return H v for each row of (K, D), as (K, D); they share the gradient's graph."""
        self.model.eval()
        sizes = [p.numel() for p in self.parameters]
        products = torch.zeros_like(vectors)
        for images, labels in self.batches:
            loss = self.criterion(self.model(images), labels) * (len(labels) / self.n_images)
            gradient = torch.autograd.grad(loss, self.parameters, create_graph=True)
            for k, vector in enumerate(vectors):
                parts = zip(vector.split(sizes), self.parameters, strict=True)
                second = torch.autograd.grad(
                    gradient,
                    self.parameters,
                    [part.view(p.shape) for part, p in parts],
                    retain_graph=k < len(vectors) - 1,
                )
                products[k] += torch.cat([s.reshape(-1) for s in second])
        return products


def filter_norms(parameters: Sequence[Tensor]) -> Tensor:
    """Return for every value the norm of the filter that it belongs to, (D,).

    A filter is the part of a kernel that makes one output; any other parameter is one filter. In
    these coordinates a step of length r in one filter is a change of it by the fraction r. What a
    network computes does not depend on the norm of a filter in front of a BatchNorm, and so does
    not the curvature. Source: H. Li et al., "Visualizing the Loss Landscape of Neural Nets",
    arXiv:1712.09913, section 4, which leaves out biases and BatchNorm.
    """
    return torch.cat(
        [
            (
                p.flatten(1).norm(dim=1, keepdim=True).expand(-1, p[0].numel()).reshape(-1)
                if p.ndim > 1
                else p.norm().expand(p.numel())
            )
            for p in (p.detach() for p in parameters)
        ]
    )


def magnitudes(parameters: Sequence[Tensor]) -> Tensor:
    """Return every value's magnitude, (D,): a step of length r changes a value by the fraction r.

    Does not change either when a channel is scaled between two layers. Source: J. Kwon et al.,
    "ASAM: Adaptive Sharpness-Aware Minimization", arXiv:2102.11600; elementwise as in
    M. Andriushchenko et al., "A Modern Look at the Relationship between Sharpness and
    Generalization", arXiv:2302.07011.
    """
    return torch.cat([p.detach().abs().reshape(-1) for p in parameters])


def ones(parameters: Sequence[Tensor]) -> Tensor:
    """Return ones (D,): the Hessian as it is, which depends on the scale of the weights."""
    return torch.cat([torch.ones_like(p).reshape(-1) for p in parameters])


#: Name → the diagonal of D, from the parameters.
COORDINATES: Mapping[str, Callable[[Sequence[Tensor]], Tensor]] = {
    "plain": ones,
    "filter": filter_norms,
    "adaptive": magnitudes,
}


class _Folded(nn.Module):
    """A convolution and the BatchNorm behind it in evaluation mode, as one convolution."""

    def __init__(self, convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        self.convolution, self.norm = convolution, norm

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, n_in, H, W) to (B, n_out, H', W')."""
        own, norm = self.convolution, self.norm
        assert norm.running_var is not None  # kept in training
        assert norm.running_mean is not None
        scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        kernel, bias = own.weight * scale.view(-1, 1, 1, 1), norm.bias - norm.running_mean * scale
        return nn.functional.conv2d(x, kernel, bias, own.stride, own.padding)


def folded(model: nn.Module) -> nn.Module:
    """Return the network in evaluation mode, sharing the parameters, with BatchNorm in its kernels.

    The same function of the same parameters, but nothing is computed for every pixel that can be
    computed for every channel: a product of the Hessian takes about 0.7 of the time.
    """
    model = copy.deepcopy(model, {id(p): p for p in model.parameters()}).eval()
    for parent in list(model.modules()):
        for (name, one), (other, two) in itertools.pairwise(list(parent.named_children())):
            if (
                isinstance(one, nn.Conv2d)
                and isinstance(two, nn.BatchNorm2d)
                and (one.bias, one.groups, one.dilation) == (None, 1, (1, 1))
            ):
                setattr(parent, name, _Folded(one, two))
                setattr(parent, other, nn.Identity())
    return model


@dataclass(frozen=True, slots=True)
class Spectrum:
    """The largest eigenvalues found, descending, each with a bound on its error.

    Attributes:
        eigenvalues: Ritz values.
        residuals: an exact eigenvalue lies within this distance of each.
        products: matrix-vector products spent.
    """

    eigenvalues: tuple[float, ...]
    residuals: tuple[float, ...]
    products: int


def lanczos(matvec: MatVec, like: Tensor, *, n_top: int, n_steps: int, seed: int = 0) -> Spectrum:
    """Approximate the ``n_top`` largest eigenvalues of a symmetric operator.

    Lanczos' three-term recurrence with full reorthogonalisation (twice), from a random unit vector;
    Ritz value i is within ``beta_m |s_mi|`` of an eigenvalue: G. Golub, C. Van Loan, "Matrix
    Computations", 4th ed., §10.1-10.3. Needs memory for ``n_steps`` vectors.

    Args:
        matvec: (D,) → (D,).
        like: a vector (D,) that gives size, type and device.
        n_top: how many eigenvalues to return.
        n_steps: iterations, at least ``n_top``; ends earlier when the Krylov space is exhausted.
        seed: of the first vector.

    Raises:
        ValueError: fewer steps than eigenvalues.
    """
    if n_steps < n_top:
        raise ValueError(f"lanczos: {n_steps} steps for {n_top} eigenvalues; give at least as many")
    generator = torch.Generator().manual_seed(seed)
    size = len(like)
    with PortableDraws():
        q = torch.empty(size, dtype=like.dtype).normal_(generator=generator).to(like.device)
    basis = [q / q.norm()]
    alphas: list[float] = []
    betas: list[float] = []
    for step in range(min(n_steps, size)):
        w = matvec(basis[-1])
        alphas.append(torch.dot(w, basis[-1]).item())
        stacked = torch.stack(basis)  # (steps, D)
        for _ in range(2):
            w = w - stacked.T @ (stacked @ w)
        betas.append(w.norm().item())
        if betas[-1] < 1e-6 * max(map(abs, alphas)) or step == min(n_steps, size) - 1:
            break
        basis.append(w / betas[-1])
    tridiagonal = torch.diag(torch.tensor(alphas, dtype=torch.float64))
    off = torch.tensor(betas[:-1], dtype=torch.float64)
    tridiagonal += torch.diag(off, 1) + torch.diag(off, -1)
    values, vectors = torch.linalg.eigh(tridiagonal)
    order = values.argsort(descending=True)[:n_top]
    residuals = betas[-1] * vectors[-1, order].abs()
    return Spectrum(tuple(values[order].tolist()), tuple(residuals.tolist()), len(alphas))


def hutchinson_traces(
    operator: HessianOperator, diagonals: Sequence[Tensor], *, n_probes: int, seed: int = 0
) -> list[tuple[float, float]]:
    """Estimate the trace of ``D H D`` for several diagonal D, each with its standard error.

    ``tr A = E[vᵀ A v]`` for v of independent signs; M. Hutchinson, Communications in Statistics 19
    (1990). All D get the same v, and their products share the gradient's graph.

    Args:
        operator: of H.
        diagonals: of D, (D,) each.
        n_probes: sign vectors; with one the standard error is ``nan``.
        seed: of the probes.
    """
    generator = torch.Generator().manual_seed(seed)
    shape = (n_probes, operator.size)
    signs = torch.randint(0, 2, shape, generator=generator).mul(2).sub(1).to(operator.like)
    vectors = torch.cat([signs * d for d in diagonals])
    values = (vectors.double() * operator.products(vectors).double()).sum(dim=1)
    by_diagonal = values.view(len(diagonals), n_probes)
    means = by_diagonal.mean(dim=1).tolist()
    if n_probes == 1:
        return [(mean, math.nan) for mean in means]
    return list(zip(means, (by_diagonal.std(dim=1) / n_probes**0.5).tolist(), strict=True))
