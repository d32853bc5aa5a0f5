"""Synthetic scans with a known object: for tests, demonstrations and training.

Legend: n frames, N frame side, H x W object; lengths in object pixels, dose in photons per frame.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ptycho_torch.physics import forward as physics
from trainrig.errors import one_of, require

OBJECTS = ("star", "lines", "field", "mixed")
SCANS = ("raster", "spiral", "random")


@dataclass
class SimulationSettings:
    """What to simulate; the defaults reconstruct well in under a minute."""

    size: int = 64
    scan: str = "raster"
    object: str = "mixed"
    rows: int = 20
    step_px: float = 6.0
    jitter_px: float = 1.6
    photons: float = 1e5
    pupil: float = 0.17  # radius of the probe's pupil in cycles per pixel
    defocus: float = 45.0  # phase -pi·defocus·f²
    modes: int = 1
    start_modes: int | None = None  # modes of the probe that the file gives; all by default
    position_error_px: float = 0.0  # standard deviation per axis of the positions it gives
    seed: int = 0

    def validate(self) -> None:
        """Raise ``ValueError`` on the first value outside its range."""
        one_of("--scan", self.scan, SCANS)
        one_of("--object", self.object, OBJECTS)
        require(self.size in (64, 128, 256), "--size", self.size, "choose 64, 128 or 256")
        require(self.rows >= 2, "--rows", self.rows, "give 2 or more")
        require(self.step_px > 0, "--step-px", self.step_px, "give a positive number")
        require(self.jitter_px >= 0, "--jitter-px", self.jitter_px, "give 0 or more")
        require(self.photons > 0, "--photons", self.photons, "give a positive number")
        require(0 < self.pupil < 0.5, "--pupil", self.pupil, "give a number in (0, 0.5)")
        require(self.modes >= 1, "--modes", self.modes, "give 1 or more")
        given = self.modes if self.start_modes is None else self.start_modes
        require(1 <= given <= self.modes, "--start-modes", given, f"give 1 to {self.modes}")
        error = self.position_error_px
        require(error >= 0, "--position-error-px", error, "give 0 or more")
        require(self.seed >= 0, "--seed", self.seed, "give 0 or more")


def make_probe(settings: SimulationSettings) -> np.ndarray:
    """(m, N, N) complex64 defocused circular pupil with Σ|P|² = photons; weaker tilted modes."""
    from ptycho_torch.physics.probe import orthogonal_modes

    n = settings.size
    fy, fx = np.meshgrid(np.fft.fftfreq(n), np.fft.fftfreq(n), indexing="ij")
    radius = np.hypot(fy, fx)
    edge = np.clip((settings.pupil - radius) * n / 1.2 + 0.5, 0, 1)
    phase = -np.pi * (settings.defocus * radius**2 + settings.defocus / 9 * (fx**2 - fy**2))
    probe = np.fft.fftshift(np.fft.ifft2(edge * np.exp(1j * phase)))
    modes = orthogonal_modes(probe, settings.modes, power=0.3)
    power = (np.abs(modes) ** 2).sum()
    return (modes * np.sqrt(settings.photons / power)).astype(np.complex64)


def make_positions(settings: SimulationSettings) -> np.ndarray:
    """(n, 2) positions (x, y), about ``rows``² of them, smallest coordinate near N/2 + 8."""
    rng = np.random.default_rng([settings.seed, 1])
    side = (settings.rows - 1) * settings.step_px
    if settings.scan == "raster":
        ticks = np.arange(settings.rows) * settings.step_px
        grid = [(x, y) for i, y in enumerate(ticks) for x in (ticks if i % 2 == 0 else ticks[::-1])]
        points = np.array(grid)
    elif settings.scan == "random":
        points = rng.uniform(0, side, (settings.rows**2, 2))
    else:
        k = np.arange(settings.rows**2)
        r, angle = side / 2 * np.sqrt(k / k[-1]), k * np.pi * (3 - np.sqrt(5))
        points = side / 2 + np.stack([r * np.cos(angle), r * np.sin(angle)], 1)
    points = points + rng.uniform(-1, 1, points.shape) * settings.jitter_px
    return points - points.min(0) + settings.size / 2 + 8


def make_object(settings: SimulationSettings, shape: tuple[int, int]) -> np.ndarray:
    """(H, W) complex64 transmission, amplitude 0.6 to 1, phase about ±1 rad."""
    rng = np.random.default_rng([settings.seed, 2])
    y, x = np.mgrid[: shape[0], : shape[1]].astype(float)
    dy, dx = y - shape[0] / 2, x - shape[1] / 2
    radius, angle = np.hypot(dy, dx), np.arctan2(dy, dx)
    star = (np.sin(18 * angle) > 0) & (radius > 6) & (radius < min(shape) / 2.6)
    rings = (np.cos(radius / 3.5) > 0.55) & (radius >= min(shape) / 2.6)
    lines = np.zeros(shape)
    for _ in range(40):
        theta, offset = rng.uniform(0, np.pi), rng.uniform(-0.5, 0.5) * max(shape)
        lines += np.exp(-((dx * np.cos(theta) + dy * np.sin(theta) - offset) ** 2) / 3)
    f = np.hypot(*np.meshgrid(np.fft.fftfreq(shape[0]), np.fft.fftfreq(shape[1]), indexing="ij"))
    spectrum = np.fft.fft2(rng.standard_normal(shape)) / (f + 0.01) ** 1.5
    field = np.fft.ifft2(spectrum).real
    field = (field - field.mean()) / np.abs(field - field.mean()).max()
    shares = {
        "star": (1, 0, 0.2),
        "lines": (0, 1, 0.2),
        "field": (0, 0, 1.0),
        "mixed": (1, 0.6, 0.6),
    }
    a, b, c = shares[settings.object]
    pattern = a * (star.astype(float) + rings) + b * np.clip(lines, 0, 2) / 2
    amplitude = np.clip(0.98 - 0.22 * pattern - 0.12 * c * field, 0.6, 1.0)
    phase = 0.9 * c * field + 0.5 * pattern - 0.25
    return (amplitude * np.exp(1j * phase)).astype(np.complex64)


def simulate_frames(
    obj: np.ndarray, probe: np.ndarray, coords: np.ndarray, *, seed: int | None = 0
) -> np.ndarray:
    """Poisson counts (n, N, N) at (n, 2) positions; expected intensities when ``seed`` is None."""
    modes = torch.from_numpy(probe.reshape(-1, *probe.shape[-2:]).astype(np.complex128))
    whole = torch.from_numpy(obj.astype(np.complex128))
    size = modes.shape[-1]
    rng = None if seed is None else np.random.default_rng([seed, 3])
    out = np.empty((len(coords), size, size), dtype=np.float64 if rng is None else np.uint32)
    for start in range(0, len(coords), 64):
        part = torch.from_numpy(np.asarray(coords[start : start + 64], dtype=np.float64))
        patches = physics.extract_patches(whole, part, size)
        rate = physics.diffract_intensity(physics.illuminate(patches[:, None], modes))[:, 0].numpy()
        out[start : start + len(part)] = rate if rng is None else rng.poisson(rate)
    return out


def simulate(settings: SimulationSettings) -> dict[str, np.ndarray]:
    """A canonical scan with truth: the arrays of a canonical NPZ.

    What the file says of positions and probe may be made wrong on purpose; the true ones are then
    in ``xcoords_true``, ``ycoords_true`` and ``probe_true``, which only the evaluation reads.
    """
    settings.validate()
    coords, probe = make_positions(settings), make_probe(settings)
    reach = np.ceil(coords.max(0)).astype(int) + settings.size // 2 + 8
    obj = make_object(settings, (int(reach[1]), int(reach[0])))
    counts = simulate_frames(obj, probe, coords, seed=settings.seed)
    rng = np.random.default_rng([settings.seed, 4])
    said = coords + settings.position_error_px * rng.standard_normal(coords.shape)
    first = probe[: settings.start_modes]
    first = first * np.sqrt((np.abs(probe) ** 2).sum() / (np.abs(first) ** 2).sum())
    return {
        "xcoords": said[:, 0],
        "ycoords": said[:, 1],
        "xcoords_start": said[:, 0],
        "ycoords_start": said[:, 1],
        "xcoords_true": coords[:, 0],
        "ycoords_true": coords[:, 1],
        "diff3d": np.sqrt(counts).astype(np.float32),
        "probeGuess": (first[0] if len(first) == 1 else first).astype(np.complex64),
        "probe_true": probe,
        "objectGuess": obj,
        "scan_index": np.zeros(len(coords), dtype=np.int64),
        "measurement_domain": np.array("amplitude"),
    }
