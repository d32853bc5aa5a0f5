"""The Hessian of the loss at a solution: largest eigenvalues and trace, without forming it.

H is that of the mean loss over a fixed set of images, with respect to all parameters, the network
in evaluation mode (BatchNorm uses its running statistics, so that the loss is a sum over images).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
        self.model, self.batches, self.criterion = model, batches, criterion
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.size = sum(p.numel() for p in self.parameters)
        self.n_images = sum(len(labels) for _, labels in batches)

    @property
    def like(self) -> Tensor:
        """A zero vector (D,) of the parameters' type, on their device."""
        return torch.cat([torch.zeros_like(p).reshape(-1) for p in self.parameters]).detach()

    def __call__(self, vector: Tensor) -> Tensor:
        """Return H v for a float vector (D,)."""
        self.model.eval()
        sizes = [p.numel() for p in self.parameters]
        parts = vector.split(sizes)
        direction = [part.view(p.shape) for part, p in zip(parts, self.parameters, strict=True)]
        product = torch.zeros_like(vector)
        for images, labels in self.batches:
            loss = self.criterion(self.model(images), labels) * (len(labels) / self.n_images)
            gradient = torch.autograd.grad(loss, self.parameters, create_graph=True)
            along = sum((g * d).sum() for g, d in zip(gradient, direction, strict=True))
            second = torch.autograd.grad(along, self.parameters)
            product += torch.cat([s.reshape(-1) for s in second])
        return product


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


def hutchinson_trace(
    matvec: MatVec, like: Tensor, *, n_probes: int, seed: int = 0
) -> tuple[float, float]:
    """Estimate the trace and the standard error of the estimate.

    ``tr H = E[vᵀHv]`` for v of independent signs; M. Hutchinson, Communications in Statistics 19
    (1990).

    Args:
        matvec: (D,) → (D,).
        like: a vector (D,) that gives size, type and device.
        n_probes: sign vectors; with one the standard error is ``nan``.
        seed: of the probes.
    """
    generator = torch.Generator().manual_seed(seed)
    samples = []
    for _ in range(n_probes):
        signs = torch.randint(0, 2, like.shape, generator=generator).mul(2).sub(1).to(like)
        samples.append(torch.dot(signs, matvec(signs)).item())
    values = torch.tensor(samples, dtype=torch.float64)
    error = values.std().item() / n_probes**0.5 if n_probes > 1 else float("nan")
    return values.mean().item(), error
