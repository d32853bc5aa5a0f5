"""Gradients in float64, with activations that lie at a kink put on its other side.

A relu's input of -3e-7, or two pixels of a pooling window that are 3e-7 apart, are on one side of
the kink in one implementation and on the other in the next: both are right within rounding, and the
gradient jumps by that element's whole share. So a recorded gradient that our float32 run misses is
held against our float64 run, first as it is, then with the kinks flipped that explain it. Only
those within rounding are ever flipped, each is named, and the bound stays what it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's customary name
from torch import Tensor
from torch.overrides import TorchFunctionMode

#: Float32 units (2^-24) that an activation may be off, relative to its map's root mean square: it
#: ends a chain of convolutions and norms, each of which adds a few.
UNITS = 64
ROUNDING = UNITS * 2.0**-24
#: Two pixels that differ by less, relative, differ by float64's rounding alone, as in the windows
#: of a blank background: either gives the same gradient.
EQUAL = 1e-12
#: Kinks tried at most: those on which the loss depends most.
MOST_TRIED = 48

#: float64 gradients by parameter name.
Gradients = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Kink:
    """An element of a map that is within rounding of a kink.

    Attributes:
        kind: ``relu`` or ``max_pool2d``.
        call: which relu or max-pool of the pass, counted from 0.
        place: of the element in the call's output, flattened as (N, C, H, W).
        distance: a relu's input, or how far a window's second largest pixel is below its largest.
        taken: which element of the flattened input the output takes; None is none, i.e. 0.
        other: which one it takes beyond the kink.
    """

    kind: str
    call: int
    place: int
    distance: float
    taken: int | None
    other: int | None

    def __str__(self) -> str:
        return f"{self.kind} {self.call} at {self.place} ({self.distance:.1e})"


class KinkWatch(TorchFunctionMode):
    """Within it, relus and max-pools note elements near a kink, and act as if some were beyond.

    Args:
        flipped: kinks to put on the other side.

    Attributes:
        kinks: those found.
        inputs, outputs: of each call, in the graph of the pass.
    """

    def __init__(self, flipped: Iterable[Kink] = ()) -> None:
        super().__init__()
        self._flipped = tuple(flipped)
        self.kinks: list[Kink] = []
        self.inputs: list[Tensor] = []
        self.outputs: list[Tensor] = []

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Compute relus and max-pools by itself; pass everything else on."""
        name = getattr(func, "__name__", "")
        if name in ("relu", "relu_"):
            return self._relu(args[0])
        if name == "max_pool2d":
            return self._max_pool(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    def _relu(self, x: Tensor) -> Tensor:
        values = x.detach().flatten()
        near = _near(values.abs(), values)
        for i, value in zip(near.tolist(), values[near].tolist(), strict=True):
            taken, other = (i, None) if value > 0 else (None, i)
            self.kinks.append(Kink("relu", len(self.inputs), i, value, taken, other))
        gate = values > 0
        for kink in self._here():
            gate[kink.place] = kink.other is not None
        return self._note(x, x * gate.view(x.shape))

    def _max_pool(
        self,
        x: Tensor,
        kernel_size: int,
        stride: int,
        padding: int | tuple[int, int] = 0,
        **options: Any,
    ) -> Tensor:
        """Pool square windows of (N, C, H, W); the ``options`` must be torch's defaults."""
        if options.get("dilation", 1) != 1 or options.get("ceil_mode"):
            raise ValueError(
                f"KinkWatch: max_pool2d with {options}; only torch's defaults are known"
            )
        values = x.detach()
        rows, columns = (padding, padding) if isinstance(padding, int) else padding
        numbers = torch.arange(values.numel(), dtype=torch.float64).view(values.shape)
        two = []
        for pixels, filler in ((values, float("-inf")), (numbers, -1.0)):
            padded = F.pad(pixels, (columns, columns, rows, rows), value=filler)
            windows = padded.unfold(2, kernel_size, stride).unfold(3, kernel_size, stride)
            two.append(windows.flatten(4))
        largest, which = two[0].topk(2, dim=-1)  # (N, C, h, w, 2)
        taken, other = two[1].gather(-1, which).long().flatten(0, 3).unbind(-1)
        gap = (largest[..., 0] - largest[..., 1]).flatten()
        for i in _near(gap, values[values.isfinite()]).tolist():
            pair = int(taken[i]), int(other[i])
            self.kinks.append(Kink("max_pool2d", len(self.inputs), i, float(gap[i]), *pair))
        for kink in self._here():
            assert kink.other is not None  # a window has a second pixel
            taken[kink.place] = kink.other
        return self._note(x, x.flatten()[taken].view(largest.shape[:-1]))

    def _here(self) -> list[Kink]:
        return [kink for kink in self._flipped if kink.call == len(self.inputs)]

    def _note(self, x: Tensor, y: Tensor) -> Tensor:
        self.inputs.append(x)
        self.outputs.append(y)
        return y


def _near(distance: Tensor, values: Tensor) -> Tensor:
    """Return where a distance from a kink is within rounding of the size of ``values``."""
    size = float(values.square().mean().sqrt()) if values.numel() else 0.0
    return ((distance <= ROUNDING * size) & (distance > EQUAL * size)).nonzero().flatten()


class ExactGradients:
    """The float64 gradients of one pass, and what they become beyond its kinks.

    Args:
        run: makes the pass within the watch it is given, and returns the loss and the parameters
            by name, both in float64.
    """

    def __init__(self, run: Callable[[KinkWatch], tuple[Tensor, Mapping[str, Tensor]]]) -> None:
        self._run = run
        self._watch = KinkWatch()
        self._loss, self._parameters = run(self._watch)
        self.plain = _gradients(self._loss, self._parameters)

    @property
    def kinks(self) -> list[Kink]:
        """All elements within rounding of a kink."""
        return self._watch.kinks

    @cached_property
    def shares(self) -> dict[Kink, Gradients]:
        """What the gradients gain beyond one kink, for the kinks on which the loss depends most."""
        watch = self._watch
        if not watch.kinks:
            return {}
        slopes = torch.autograd.grad(
            self._loss, watch.outputs, retain_graph=True, allow_unused=True
        )
        weights = {
            kink: float(slope[np.unravel_index(kink.place, slope.shape)])
            for kink in watch.kinks
            if (slope := slopes[kink.call]) is not None
        }
        most = sorted(weights, key=lambda kink: -abs(weights[kink]))[:MOST_TRIED]
        return {kink: self._share(kink, weights[kink]) for kink in most}

    def _share(self, kink: Kink, weight: float) -> Gradients:
        x = self._watch.inputs[kink.call]
        gained = sum(
            sign * x[np.unravel_index(index, x.shape)]
            for sign, index in ((1, kink.other), (-1, kink.taken))
            if index is not None
        )
        assert isinstance(gained, Tensor)  # one of the two is an element
        return _gradients(weight * gained, self._parameters)

    def closest(
        self, deviation: Callable[[Gradients], float], bound: float
    ) -> tuple[Gradients, tuple[Kink, ...]]:
        """Return the gradients, and the kinks flipped in them, that a deviation allows best.

        The flip that lowers the deviation most is taken, then the next, until the bound holds or
        none lowers it. The pass is then made with those flips.
        """
        chosen: list[Kink] = []
        total, least = self.plain, deviation(self.plain)
        while least > bound:
            trials = {
                kink: {name: total[name] + gain for name, gain in share.items()}
                for kink, share in self.shares.items()
                if kink not in chosen
            }
            deviations = {kink: deviation(trial) for kink, trial in trials.items()}
            best = min(deviations, key=deviations.__getitem__, default=None)
            if best is None or not deviations[best] < least:
                break
            total, least = trials[best], deviations[best]
            chosen.append(best)
        if not chosen:
            return self.plain, ()
        return _gradients(*self._run(KinkWatch(chosen))), tuple(chosen)


def _gradients(loss: Tensor, parameters: Mapping[str, Tensor]) -> Gradients:
    found = torch.autograd.grad(loss, [*parameters.values()], retain_graph=True, allow_unused=True)
    return {
        name: torch.zeros_like(p) if gradient is None else gradient
        for (name, p), gradient in zip(parameters.items(), found, strict=True)
    }
