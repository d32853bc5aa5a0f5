"""What a short refinement of a part of the scan tells: the start probe's defocus, the orientation.

The part is the frames nearest to the scan's middle, cut to their central pixels: a coarser
recording of the same experiment, on which a hypothesis costs a second or less.

Legend: n frames, N frame side.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from ptycho_torch.data.reshape import resampled
from ptycho_torch.physics.probe import mean_frame_probe
from ptycho_torch.raw_data import RawDataTorch
from ptycho_torch.recon.refine import RefineSettings, refine
from ptycho_torch.scan.rules import Assumptions, Note, blocks, turned
from trainrig.errors import DivergedError

logger = logging.getLogger(__name__)

SIDE_PX, FRAMES, EPOCHS = 64, 64, 8
DEFOCUS = (0.0, 10.0, 20.0, 30.0, 45.0, 60.0, 80.0, 110.0, 150.0)


def coarse_part(scan: RawDataTorch, frames: int = FRAMES, side: int = SIDE_PX) -> RawDataTorch:
    """The frames nearest to the scan's middle, their central ``side`` pixels.

    Half of the detector sees half of the resolution: object pixels are N/side times as large.
    """
    middle = np.median(scan.coords, axis=0)
    away = np.linalg.norm(scan.coords - middle, axis=1)
    part = scan.select(np.sort(np.argsort(away, kind="stable")[:frames]))
    if side >= scan.N:
        return replace(part, diff3d=np.asarray(part.diff3d[:]))
    middle_px = slice((scan.N - side) // 2, (scan.N + side) // 2)
    cut = (..., middle_px, middle_px)
    probe = resampled(scan.probe_modes, side)
    coords = (part.coords - scan.N / 2) * side / scan.N + side / 2
    return replace(
        part,
        diff3d=np.ascontiguousarray(np.asarray(part.diff3d[:])[cut]),
        bad_pixels=None if part.bad_pixels is None else part.bad_pixels[cut],
        probeGuess=probe,
        xcoords=coords[:, 0],
        ycoords=coords[:, 1],
        objectGuess=None,
    )


def short_loss(scan: RawDataTorch, *, learn_probe: bool, epochs: int = EPOCHS) -> float:
    """The loss after a short refinement from a flat object; infinite where it diverges."""
    settings = RefineSettings(epochs=epochs, batch_size=10, learn_probe=learn_probe)
    try:
        return [state.loss for state in refine(scan, settings)][-1]
    except DivergedError:
        return float("inf")


def defocused(probe: np.ndarray, defocus: float) -> np.ndarray:
    """A probe (..., N, N) with the far-field phase -π·defocus·f², f in cycles per pixel."""
    frequency = np.fft.fftfreq(probe.shape[-1])
    square = frequency[:, None] ** 2 + frequency**2
    field = np.fft.fft2(probe) * np.exp(-1j * np.pi * defocus * square)
    return np.fft.ifft2(field).astype(np.complex64)


def with_start_probe(scan: RawDataTorch) -> RawDataTorch:
    """The scan, its start probe of the mean frame given the defocus that explains it best.

    A scan whose file gives a probe is returned as it is. The mean frame tells the amplitude of the
    beam in the far field, blurred by the sample, and nothing of its phase; a flat one is the
    narrowest beam.
    """
    if scan.probe_source == "file" or len(scan) < 4:
        return scan
    part = coarse_part(scan)
    scale = (part.N / scan.N) ** 2  # defocus in coarse pixels
    candidates = sorted({sign * value for value in DEFOCUS for sign in (1, -1)})
    losses = {}
    start = pupil_probe(part)
    for defocus in candidates:
        trial = replace(part, probeGuess=defocused(start, defocus))
        losses[defocus] = short_loss(trial, learn_probe=True)
    best = min(losses, key=lambda key: losses[key])
    flat = losses[0.0]
    text = (
        f"start probe: the mean frame's amplitude with a defocus of {best / scale:.0f} px² (phase "
        f"-π·defocus·f²): loss {losses[best]:.4f} on {len(part)} frames, {flat:.4f} without"
    )
    logger.info("%s: %s", scan.source, text)
    whole = defocused(pupil_probe(scan), best / scale)
    return replace(scan, probeGuess=whole, notes=(*scan.notes, Note("assumed", text)))


def pupil_probe(scan: RawDataTorch) -> np.ndarray:
    """(N, N) complex64 flat-phase probe of the frames' mean intensity, photons kept."""
    total, times = np.zeros((scan.N, scan.N)), np.zeros((scan.N, scan.N))
    for rows, block in blocks(scan.diff3d):
        total += np.square(block.astype(np.float64)).sum(0)
        bad = scan.bad_of(np.arange(len(scan))[rows])
        times += len(block) if bad is None else (~bad).sum(0)
    return mean_frame_probe(total / np.maximum(times, 1), times == 0)


@dataclass(frozen=True)
class Orientation:
    """One of the eight ways to lay the positions over the frames, and its loss.

    ``defocus`` is that of the start probe, where the file gives none.
    """

    axes: str
    sign: str
    loss: float
    defocus: float | None = None

    @property
    def as_read(self) -> bool:
        """Whether the file's own orientation is meant."""
        return (self.axes, self.sign) == ("as-read", "as-read")

    def __str__(self) -> str:
        return "as read" if self.as_read else f"axes {self.axes}, sign {self.sign}"


def find_orientation(scan: RawDataTorch) -> list[Orientation]:
    """The orientations of the positions, the one with the lowest loss first.

    Negated positions with the opposite defocus give exactly the same frames, of the conjugate and
    inverted object. With the probe of the file all eight are tried; without one, an orientation
    cannot be told from its negation by any frames, and four are tried with several defoci.
    """
    part, found = coarse_part(scan), []
    known = scan.probe_source == "file"
    signs = ("as-read", "negated", "x-negated", "y-negated") if known else ("as-read", "x-negated")
    probes: dict[float | None, np.ndarray] = {None: part.probe_modes}
    if not known:
        flat = pupil_probe(part)
        probes = {d: defocused(flat, d) for d in (-90.0, -45.0, -20.0, 20.0, 45.0, 90.0)}
    for axes, sign in product(("as-read", "swapped"), signs):
        said = Assumptions(position_axes=axes, position_sign=sign)
        coords = turned({"xcoords": part.xcoords, "ycoords": part.ycoords}, said)
        laid = replace(part, xcoords=coords["xcoords"], ycoords=coords["ycoords"])
        for defocus, probe in probes.items():
            loss = short_loss(replace(laid, probeGuess=probe), learn_probe=True)
            found.append(Orientation(axes, sign, loss, defocus))
    best: dict[tuple[str, str], Orientation] = {}
    for one in sorted(found, key=lambda one: one.loss):
        best.setdefault((one.axes, one.sign), one)
    return list(best.values())
