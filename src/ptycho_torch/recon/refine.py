"""Iterative reconstruction through the forward model: after a network, or on its own.

Mini-batches of frames, analytic descent of the amplitude or Poisson loss with automatic
differentiation, preconditioned by the illumination of each batch (as the extended ptychographic
engine scales its updates) and with momentum. The step is constant for the first half of the epochs
and falls linearly to zero in the second, which averages the noise of the last updates out.
Probe modes, positions and an additive background are refined on request.

Legend: n frames, b batch, m modes, N frame side, H x W canvas. Sources: Maiden, Johnson & Li,
Optica 4, 736 (2017) for the preconditioner; Thibault & Guizar-Sicairos, New J. Phys. 14, 063004
(2012) for the likelihood.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ptycho_torch.physics import forward as physics
from ptycho_torch.physics.canvas import Grid
from ptycho_torch.raw_data import RawDataTorch
from trainrig.device import send
from trainrig.seeding import deterministic_kernels

logger = logging.getLogger(__name__)


@dataclass
class RefineSettings:
    """How to refine; ``step`` is the fraction of the preconditioned step, 0 < step <= 1."""

    epochs: int = 40
    batch_size: int = 32
    step: float = 0.5
    momentum: float = 0.7
    damping: float = 0.1  # share of the brightest illumination added to the preconditioner
    loss: str = "amplitude"
    smoothness: float = 0.0  # weight of the squared gradient of the object
    learn_probe: bool = False
    learn_positions: bool = False
    learn_background: bool = False
    probe_start_epoch: int = 2
    position_step_px: float = 0.2
    position_limit_px: float = 3.0
    seed: int = 0

    def validate(self) -> None:
        """Raise ``ValueError`` on the first value outside its range."""
        if self.epochs < 0 or self.batch_size < 1:
            raise ValueError(
                f"refine: epochs {self.epochs}, batch size {self.batch_size}; give at least 0 and 1"
            )
        if not 0 < self.step <= 1 or not 0 <= self.momentum < 1:
            raise ValueError(
                f"refine: step {self.step}, momentum {self.momentum}; use (0, 1] and [0, 1)"
            )
        if self.seed < 0:
            raise ValueError(f"refine: seed {self.seed}; give 0 or more")
        if self.loss not in ("amplitude", "poisson"):
            raise ValueError(f"refine: loss {self.loss!r}; use amplitude or poisson")


@dataclass
class RefineState:
    """The reconstruction after an epoch; arrays live on the device until asked for."""

    epoch: int
    loss: float
    object: Tensor  # (H, W) complex64
    probe: Tensor  # (m, N, N) complex64
    shifts_xy: Tensor  # (n, 2) float64, added to the scan's positions
    background: Tensor  # (N, N) float32 intensity, centred
    grid: Grid
    losses: list[float] = field(default_factory=list)

    def numpy(self) -> np.ndarray:
        """The object as a NumPy array."""
        return self.object.detach().cpu().numpy()


class Rows(NamedTuple):
    """Numbers of the frames of a batch, on the host and where they are computed."""

    host: np.ndarray
    there: Tensor

    @classmethod
    def of(cls, rows: Tensor, device: torch.device | str) -> Rows:
        """Return the rows (K,), which lie on the host, and send them."""
        return cls(rows.numpy(), send(rows, device))


class _Engine:
    """Variables, velocities and preconditioners of one refinement."""

    def __init__(
        self,
        scan: RawDataTorch,
        grid: Grid,
        start: np.ndarray | None,
        settings: RefineSettings,
        device: torch.device | str,
    ) -> None:
        self.scan, self.grid, self.s, self.device = scan, grid, settings, device
        obj = np.ones(grid.shape) if start is None else start
        if obj.shape != grid.shape:
            raise ValueError(f"refine: start of shape {obj.shape} for a canvas of {grid.shape}")
        self.object = torch.from_numpy(obj.astype(np.complex64)).to(device)
        self.probe = torch.from_numpy(scan.probe_modes).to(device)
        self.power = self.probe.abs().square().sum()
        pixels = torch.from_numpy(grid.pixels(scan.coords)).to(device)
        self.corner = pixels.flip(-1) - scan.N / 2  # (n, 2), rows first
        self.shifts = torch.zeros_like(self.corner)
        self.background = torch.zeros(scan.N, scan.N, device=device)
        self.pixels = float(len(scan) * scan.N**2)  # that are compared
        if scan.bad_pixels is not None:
            self.pixels *= 1 - float(scan.bad_pixels.mean())
        self.velocity = {"object": torch.zeros_like(self.object)}
        self.velocity["probe"] = torch.zeros_like(self.probe)
        self.moment = torch.zeros(len(scan), device=device, dtype=torch.float64)
        self.excess: tuple[Tensor, Tensor] | None = None  # of the newest batch, for the background
        self.slowed = 1.0  # factor of the step, halved when the loss rises

    def loss(self, rows: Rows, obj: Tensor, probe: Tensor, shifts: Tensor, back: Tensor) -> Tensor:
        """Summed loss of a batch; frames are compared unshifted, which saves a shift per frame."""
        frames = send(torch.from_numpy(np.asarray(self.scan.diff3d[rows.host])), self.device)
        measured = torch.fft.ifftshift(frames, dim=(-2, -1))
        size = (self.scan.N, self.scan.N)
        windows = physics.sample_windows(obj[None], self.corner[rows.there] + shifts, size)
        field = torch.fft.fft2(windows[:, None] * probe, norm="ortho")
        rate = (field.real.square() + field.imag.square()).sum(1) + torch.fft.ifftshift(back)
        if self.s.loss == "poisson":
            # per photon amplitude: divided by four it has the curvature of the amplitude loss
            terms = physics.poisson_nll(rate.clamp_min(1e-6), measured.square()) / 2
        else:
            terms = (torch.sqrt(rate + 1e-9) - measured).square()
        bad = self.scan.bad_of(rows.host)
        if bad is not None:
            hidden = send(torch.from_numpy(np.fft.ifftshift(bad, axes=(-2, -1))), self.device)
            terms = terms.masked_fill(hidden, 0.0)
        if back.requires_grad:
            weight = 1 / (rate.detach() + 1)
            weight = weight if bad is None else weight.masked_fill(hidden, 0.0)
            excess = (weight * (measured.square() - rate.detach())).sum(0)
            self.excess = excess, weight.sum(0)
        return terms.sum()

    def illumination(self, rows: Tensor) -> Tensor:
        """Sum of |P|² over the batch's frames, at whole pixels."""
        power = self.probe.abs().square().sum(0)
        place = torch.round(self.corner[rows] + self.shifts[rows]).long()
        canvas = torch.zeros(1, *self.grid.shape, device=self.device)
        return physics.accumulate(canvas, power.expand(len(rows), *power.shape), place)[0]

    def update(self, batch: Rows, step: float, epoch: int) -> Tensor:
        """One preconditioned step from one batch; returns its summed loss, waiting for nothing."""
        s, rows = self.s, batch.there
        late = epoch >= s.probe_start_epoch
        probe_on, shift_on = s.learn_probe and late, s.learn_positions and late
        obj = self.object.detach().requires_grad_()
        probe = self.probe.detach().requires_grad_(probe_on)
        shifts = self.shifts[rows].detach().requires_grad_(shift_on)
        back = self.background.detach().requires_grad_(s.learn_background and late)
        loss = self.loss(batch, obj, probe, shifts, back)
        penalty: Tensor | float = 0.0
        if s.smoothness:
            penalty = s.smoothness * len(rows) / len(self.scan) * physics.total_variation(obj)
        (loss + penalty).backward()
        assert obj.grad is not None
        light = self.illumination(rows)
        scale = (1 - s.damping) * light + s.damping * light.max()
        self._move("object", obj.grad / (2 * scale), step)
        if probe.grad is not None:
            weight = self.object.abs().square().max() * len(rows)
            self._move("probe", probe.grad / (2 * weight), step)
            self._keep_power()
        if shifts.grad is not None:
            self._move_positions(rows, shifts.grad, step / s.step)
        if self.excess is not None:
            self._move_background(*self.excess, step)
        return loss.detach()

    def _move_background(self, excess: Tensor, weight: Tensor, step: float) -> None:
        """Move the background towards the mean by which the counts exceed the model.

        Frames are weighted by the variance to expect (Fisher scoring of the Poisson likelihood),
        plus one count, which keeps dark pixels finite.
        """
        change = torch.fft.fftshift(excess / weight.clamp_min(1e-12))
        self.background = (self.background + step * change).clamp_min(0)
        self.excess = None

    def notice(self, losses: list[float]) -> None:
        """Halve the step and drop the momentum where the loss has risen twice in a row."""
        if len(losses) < 3 or not losses[-1] > losses[-2] > 1.02 * min(losses[:-2]):
            return
        self.slowed /= 2
        for name in self.velocity:
            self.velocity[name] = torch.zeros_like(self.velocity[name])
        logger.warning(
            "refine: the loss rises (%.5f, least %.5f): step halved", losses[-1], min(losses)
        )

    def _keep_power(self) -> None:
        """Give the probe its start power back and the object the factor: nothing else fixes it."""
        factor = torch.sqrt(self.power / self.probe.abs().square().sum())
        self.probe, self.object = self.probe * factor, self.object / factor

    def _move(self, name: str, direction: Tensor, step: float) -> None:
        self.velocity[name] = self.s.momentum * self.velocity[name] - step * direction
        setattr(self, name, getattr(self, name).detach() + self.velocity[name])

    def _move_positions(self, rows: Tensor, gradient: Tensor, fade: float) -> None:
        size = gradient.square().sum(1)
        self.moment[rows] = 0.9 * self.moment[rows] + 0.1 * size
        change = gradient / (self.moment[rows].sqrt()[:, None] + 1e-12)
        moved = self.shifts[rows] - self.s.position_step_px * fade * change
        limit = self.s.position_limit_px
        self.shifts[rows] = moved.clamp(-limit, limit)


def misfit(
    scan: RawDataTorch, grid: Grid, start: np.ndarray, *, frames: int = 256, batch: int = 32
) -> float:
    """Mean squared amplitude error per good pixel of an object, over evenly spread frames."""
    engine = _Engine(scan, grid, start, RefineSettings(), "cpu")
    chosen = torch.linspace(0, len(scan) - 1, min(frames, len(scan))).round().long()
    with torch.no_grad():
        total = sum(
            float(
                engine.loss(
                    Rows.of(rows, "cpu"),
                    engine.object,
                    engine.probe,
                    engine.shifts[rows],
                    engine.background,
                )
            )
            for rows in chosen.split(batch)
        )
    return total / (engine.pixels * len(chosen) / len(scan))


def refine(
    scan: RawDataTorch,
    settings: RefineSettings,
    *,
    grid: Grid | None = None,
    start: np.ndarray | None = None,
    device: torch.device | str = "cpu",
) -> Iterator[RefineState]:
    """Refine an object epoch by epoch; the caller's ``for`` body shows, saves or stops.

    Args:
        scan: frames, positions and start probe.
        settings: how; validated here.
        grid: canvas, around the positions by default.
        start: (H, W) complex start on that canvas, ones by default.
        device: where to compute.

    Yields:
        the state after every epoch, starting at 1.

    Raises:
        trainrig.errors.DivergedError: the loss is no longer finite.
    """
    from trainrig.errors import DivergedError

    settings.validate()
    grid = Grid.of(scan.coords, scan.N) if grid is None else grid
    engine = _Engine(scan, grid, start, settings, device)
    generator = torch.Generator().manual_seed(settings.seed)
    losses: list[float] = []
    for epoch in range(settings.epochs):
        fade = min(1.0, 2 * (1 - epoch / settings.epochs))
        order = torch.randperm(len(scan), generator=generator)
        with deterministic_kernels(device):
            summed = [
                engine.update(Rows.of(rows, device), settings.step * fade * engine.slowed, epoch)
                for rows in order.split(settings.batch_size)
            ]
        total = sum(torch.stack(summed).tolist())
        losses.append(total / engine.pixels)
        if not np.isfinite(losses[-1]):
            raise DivergedError(
                f"refine: loss is {losses[-1]} in epoch {epoch + 1}; lower the step"
            )
        engine.notice(losses)
        shifts = engine.shifts.flip(-1)  # rows first inside, (x, y) outside
        yield RefineState(
            epoch + 1,
            losses[-1],
            engine.object,
            engine.probe,
            shifts,
            engine.background,
            grid,
            list(losses),
        )
