"""Muon for everything with a matrix in it, AdamW for the rest, as one optimizer.

``torch.optim.Muon`` takes matrices only. Here a kernel of more than two axes is seen as the matrix
(outputs, everything else); biases and norm parameters go to AdamW.

Source: K. Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024; the
learning-rate adjustment ``match_rms_adamw`` is J. Liu et al., arXiv:2502.16982, §2.2, which lets
one learning rate serve both halves.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from trainrig.optim.torch_builtin import OPTIMIZERS

SHARED = ("lr", "weight_decay")


@OPTIMIZERS.register("muon")
class MuonWithAdamW(torch.optim.Optimizer):
    """Muon on parameters with two or more axes, AdamW on all others.

    The kernels are updated through views, so the model must not be moved to another device or
    memory format after the optimizer was built.

    Args:
        params: parameters or groups; a group's ``lr`` and ``weight_decay`` are respected.
        lr: of both halves.
        weight_decay: decoupled, of both halves.
        momentum: Muon's.
        nesterov: Muon's.
        ns_steps: Newton-Schulz iterations.
        adjust_lr_fn: ``match_rms_adamw`` or ``original``, see ``torch.optim.Muon``.
        betas: AdamW's.
        eps: AdamW's.

    Raises:
        ValueError: a kernel whose memory is not dense.
    """

    def __init__(  # noqa: PLR0913 - the union of two constructors
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_steps: int = 5,
        adjust_lr_fn: str = "match_rms_adamw",
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})
        self._pairs: list[tuple[Tensor, Tensor]] = []  # kernel, its matrix view
        muon, adamw = [], []
        for group in self.param_groups:
            shared = {name: group[name] for name in SHARED}
            kernels = [p for p in group["params"] if p.ndim >= 2]
            others = [p for p in group["params"] if p.ndim < 2]
            matrices = [as_matrix(p) for p in kernels]
            self._pairs += zip(kernels, matrices, strict=True)
            muon.append({"params": matrices, **shared})
            adamw.append({"params": others, **shared})
        self._muon = torch.optim.Muon(
            muon,
            momentum=momentum,
            nesterov=nesterov,
            ns_steps=ns_steps,
            adjust_lr_fn=adjust_lr_fn,
        )
        self._adamw = torch.optim.AdamW(adamw, betas=(betas[0], betas[1]), eps=eps)

    def step(self, closure: Any = None) -> Any:
        """Update both halves; return what ``closure`` returned, if there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in (self._muon, self._adamw):
            for own, group in zip(self.param_groups, part.param_groups, strict=True):
                group.update({name: own[name] for name in SHARED})
        for kernel, matrix in self._pairs:
            matrix.grad = None if kernel.grad is None else flatten(kernel.grad, kernel)
        self._muon.step()
        self._adamw.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """Return both halves' states and the groups' shared settings."""
        groups = [{name: group[name] for name in SHARED} for group in self.param_groups]
        return {
            "muon": self._muon.state_dict(),
            "adamw": self._adamw.state_dict(),
            "groups": groups,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what ``state_dict`` returned.

        Raises:
            KeyError: it is the state of another kind of optimizer.
            ValueError: it belongs to other parameters.
        """
        self._muon.load_state_dict(state_dict["muon"])
        self._adamw.load_state_dict(state_dict["adamw"])
        for group, settings in zip(self.param_groups, state_dict["groups"], strict=True):
            group.update(settings)


def flatten(tensor: Tensor, like: Tensor) -> Tensor:
    """Return ``tensor`` as (outputs, everything else), columns in the memory order of ``like``.

    Muon's update commutes with a permutation of columns, so that any order will do.
    """
    inner = sorted(range(1, like.ndim), key=lambda axis: (-like.stride()[axis], axis))
    return tensor.permute(0, *inner).reshape(tensor.shape[0], -1)


def as_matrix(kernel: Tensor) -> torch.nn.Parameter:
    """Return a matrix parameter that shares the kernel's memory.

    Raises:
        ValueError: the kernel's memory has gaps, so that no such view exists.
    """
    matrix = flatten(kernel.detach(), kernel)
    if matrix.data_ptr() != kernel.data_ptr():
        raise ValueError(
            f"muon: a kernel of shape {tuple(kernel.shape)} and strides {kernel.stride()} is not "
            "dense; make it contiguous first"
        )
    return torch.nn.Parameter(matrix)
