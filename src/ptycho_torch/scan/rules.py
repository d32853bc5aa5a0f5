"""What every scan must satisfy, whatever file it comes from: one set of rules for all readers.

Frames, mask and positions are surveyed once, in chunks. What is plainly wrong raises
``ValueError`` with one sentence; what was decided is said as a ``Note``. ``Assumptions`` are a
user's own decisions and win over the rules.

Legend: n frames, N frame side. Pixels of a mask are True where the detector cannot be trusted.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import numpy as np

from trainrig.errors import nearest, one_of

logger = logging.getLogger(__name__)

DOMAINS = ("amplitude", "counts")
#: Names that other programs give to the same two domains.
DOMAIN_NAMES = {
    "amplitude": "amplitude",
    "normalized_amplitude": "amplitude",
    "counts": "counts",
    "count_intensity": "counts",
}
SAMPLE_FRAMES = 64  # frames looked at when deciding between counts and amplitudes
#: Values at which detectors saturate or by which they mark a gap, found in wider types too.
FULL_SCALES = (4095, 16383, 65535, 1048575, 16777215, 2147483647)
NO_COUNT = 2.0**32 - 1  # no detector counts so far in one frame
MAX_CANVAS_PX = 2**28  # 2 GiB of complex64
OUTLIER = 20  # times the typical distance from the scan's middle


@dataclass(frozen=True)
class Note:
    """Something that was found or decided while a scan was read; ``doubtful`` is a warning."""

    level: Literal["found", "assumed", "doubtful"]
    text: str


class Notes(list[Note]):
    """What is known of a scan; each note is logged when it is made."""

    def __init__(self, where: str, notes: Iterable[Note] = ()) -> None:
        super().__init__(notes)
        self.where = where

    def add(self, level: Literal["found", "assumed", "doubtful"], text: str) -> None:
        """Keep a note and log it."""
        self.append(Note(level, text))
        logger.log(
            logging.WARNING if level == "doubtful" else logging.INFO, "%s: %s", self.where, text
        )


@dataclass(frozen=True)
class Assumptions:
    """What a user says of a file (``--assume key=value``); None leaves it to the rules."""

    domain: str | None = field(default=None, metadata={"of": DOMAINS})
    energy_unit: str | None = field(default=None, metadata={"of": ("J", "eV", "keV")})
    zero_frequency: str | None = field(default=None, metadata={"of": ("centre", "corner")})
    mask: str | None = field(default=None, metadata={"of": ("bad", "good")})
    frames_axis: str | None = field(default=None, metadata={"of": ("first", "last")})
    position_unit: str | None = field(default=None, metadata={"of": ("px", "m", "um", "nm")})
    position_sign: str | None = field(
        default=None, metadata={"of": ("as-read", "negated", "x-negated", "y-negated")}
    )
    position_axes: str | None = field(default=None, metadata={"of": ("as-read", "swapped")})
    probe: str | None = field(default=None, metadata={"of": ("file", "mean-frame")})
    hot_pixels: str | None = field(default=None, metadata={"of": ("keep", "mask")})

    @classmethod
    def parse(cls, words: Iterable[str] | None) -> Assumptions:
        """Read ``key=value`` words.

        Raises:
            ValueError: an unknown key or value.
        """
        known = {item.name: item.metadata["of"] for item in fields(cls)}
        chosen: dict[str, str] = {}
        for word in words or ():
            key, _, value = word.partition("=")
            if key not in known:
                listed = ", ".join(known)
                raise ValueError(
                    f"--assume {word}: unknown key; one of {listed}{nearest(key, known)}"
                )
            one_of(f"--assume {key}", value, known[key])
            chosen[key] = value
        return cls(**chosen)


# --- frames ---


def frames_first(
    frames: np.ndarray,
    count: int,
    where: str,
    notes: Notes,
    axis: str | None = None,
    *,
    square: bool = True,
) -> np.ndarray:
    """Bring frames to (n, N, N).

    The axis is chosen by the number of positions. Where that fits both ends, as for 64 frames of
    64 pixels, it is the axis along which the frames' sums vary least: detector rows differ more.

    Args:
        frames: (n, N, N), (N, N, n), either with an axis of length 1, or (rows, columns, N, N).
        count: number of positions.
        where: for messages.
        notes: receives the decision, where there was one.
        axis: ``first`` or ``last``, where the user says so.
        square: whether frames must be.

    Raises:
        ValueError: no axis has that length, or frames are not square.
    """
    shape = frames.shape
    if frames.ndim == 4 and 1 in shape:
        frames = frames.reshape([size for at, size in enumerate(shape) if at != shape.index(1)])
    elif frames.ndim == 4 and shape[0] * shape[1] == count:
        frames = frames.reshape(count, *shape[2:])
    if frames.ndim != 3:
        raise ValueError(f"{where}: frames have shape {shape}; give (n, N, N)")
    first, last = frames.shape[0] == count, frames.shape[-1] == count
    if not (first or last):
        raise ValueError(
            f"{where}: {count} coordinates for frames of shape {frames.shape}; "
            "give as many coordinates as frames"
        )
    if first and last and frames.shape[1] == count:
        last = axis == "last" if axis else _sums_vary_less_along_the_end(frames)
        first = not last
        if last and axis is None:
            notes.add("assumed", f"frames of shape {frames.shape} are in (N, N, n) order")
    if not first:
        frames = np.moveaxis(frames, -1, 0)
    if square and frames.shape[1] != frames.shape[2]:
        raise ValueError(
            f"{where}: frames of {frames.shape[1:]} pixels; they must be square: "
            "convert_ptycho.py --side N cuts or pads them"
        )
    return frames


def _sums_vary_less_along_the_end(frames: np.ndarray) -> bool:
    finite = np.nan_to_num(np.asarray(frames, np.float64), posinf=0, neginf=0).clip(0, 65534)

    def spread(axes: tuple[int, int]) -> float:
        sums = finite.sum(axes)
        return float(sums.std() / max(sums.mean(), 1e-30))

    return spread((0, 1)) < 0.5 * spread((1, 2))


def blocks(frames: Any) -> Iterator[tuple[slice, np.ndarray]]:
    """Pass over frames 32 MiB at a time."""
    chunk = max(1, 2**22 // (frames.shape[1] * frames.shape[2]))
    for start in range(0, len(frames), chunk):
        rows = slice(start, start + chunk)
        yield rows, np.asarray(frames[rows])


def static_or_per_frame(mask: Any, shape: tuple[int, ...], where: str, notes: Notes) -> np.ndarray:
    """A detector mask as bool, (N, N) or (n, N, N), True for bad pixels.

    Raises:
        ValueError: another shape, or values that are neither 0 nor one other number.
    """
    mask = np.asarray(mask)
    while mask.ndim > 2 and mask.shape[0] == 1:
        mask = mask[0]
    if mask.shape not in (shape[1:], shape):
        side = f"({shape[1]}, {shape[2]})"
        raise ValueError(
            f"{where}: bad_pixels has shape {mask.shape} for frames of {side} pixels; "
            f"give {side} or {shape}, bool"
        )
    if mask.dtype == bool:
        return mask
    if mask.dtype.kind not in "iuf":
        raise ValueError(f"{where}: bad_pixels is {mask.dtype}; give bool, True for a bad pixel")
    values = np.unique(mask[np.isfinite(mask)] if mask.dtype.kind == "f" else mask)
    if len(values) > 2 or (len(values) == 2 and values[0] != 0) or not np.isfinite(mask).all():
        raise ValueError(
            f"{where}: bad_pixels holds {', '.join(f'{v:g}' for v in values[:4])}..; "
            "give bool, or 0 for a good and 1 for a bad pixel"
        )
    notes.add("assumed", f"bad_pixels is {mask.dtype}: pixels other than 0 are bad")
    return mask != 0


@dataclass
class Survey:
    """What the passes over the frames found.

    Attributes:
        bad: (N, N) or (n, N, N) bool of every pixel that is masked; None for none.
        mean: (N, N) float64 mean of the good values.
        photons: (n,) counts of each frame's good pixels.
    """

    bad: np.ndarray | None
    mean: np.ndarray
    photons: np.ndarray


@dataclass
class _Marks:
    """What counts as no measurement, in one scan."""

    declared: np.ndarray | None  # (N, N) or (n, N, N)
    limit: float  # values from here on are sentinels
    gap: np.ndarray  # (N, N) not finite in every frame
    markers: np.ndarray  # (N, N) negative numbers here are markers

    def hidden(self, rows: slice, block: np.ndarray) -> np.ndarray:
        """(b, N, N) bool of a block of frames."""
        bad = (block >= self.limit) | self.gap | (self.markers & (block < 0))
        return bad if self.declared is None else bad | _rows(self.declared, rows)


def _rows(mask: np.ndarray, rows: slice) -> np.ndarray:
    return mask[rows] if mask.ndim == 3 else mask


def survey_frames(
    frames: np.ndarray, domain: str, declared: np.ndarray | None, where: str, notes: Notes
) -> Survey:
    """Find what is no measurement in the frames, and refuse what cannot be repaired.

    Masked and said: values at the type's or the detector's full scale, negative markers (-1 and -2
    in integer frames, else the same negative number in every frame), and pixels that are not finite
    in any frame. Other negative counts are noise about zero and count as zero.

    Raises:
        ValueError: frames with scattered values that are not finite; negative amplitudes, or more
            negative counts than noise explains; no pixel is left; every frame is zero.
    """
    power = 2 if domain == "amplitude" else 1
    marks = _find_marks(frames, power, declared, where, notes)
    side = frames.shape[1:]
    hidden_times, total = np.zeros(side, int), np.zeros(side)
    below, lowest, photons = 0.0, 0.0, np.zeros(len(frames))
    for rows, block in blocks(frames):
        hidden = marks.hidden(rows, block)
        hidden_times += hidden.sum(0)
        values = np.where(hidden, 0, block).astype(np.float64)
        below -= float(values.clip(max=0).sum())
        lowest = min(lowest, float(values.min()))
        values = values.clip(0)
        photons[rows] = (values**power).sum((1, 2))
        total += values.sum(0)
    n = len(frames)
    if (hidden_times == n).all():
        raise ValueError(
            f"{where}: no pixel is left: all {hidden_times.size} are bad by bad_pixels, a "
            "detector's full scale or a negative marker"
        )
    _judge_counts(photons, below, lowest, domain, where, notes)
    bad = None
    if ((hidden_times > 0) & (hidden_times < n)).any():
        bad = np.empty(frames.shape, bool)
        for rows, block in blocks(frames):
            bad[rows] = marks.hidden(rows, block)
    elif hidden_times.any():
        bad = hidden_times > 0
    if bad is not None:
        notes.add("found", f"{100 * float(bad.mean()):.3g} % of the pixels are masked")
    return Survey(bad, total / np.maximum(n - hidden_times, 1), photons)


def _judge_counts(
    photons: np.ndarray, below: float, lowest: float, domain: str, where: str, notes: Notes
) -> None:
    """Refuse a dead detector and negative values that are no noise; ``below`` is their sum."""
    empty = int((photons == 0).sum())
    if empty == len(photons):
        raise ValueError(f"{where}: every frame is zero (dead detector); nothing to reconstruct")
    share = below / (below + float(photons.sum()))
    if below > 0 and (domain == "amplitude" or share > 0.1):
        raise ValueError(
            f"{where}: frames hold negative values (down to {lowest:.4g}, {100 * share:.2g} % of "
            f"the sum) and are {domain}; mask the detector first, or subtract less background"
        )
    if below > 0:
        notes.add("assumed", f"negative counts (down to {lowest:.4g}) are noise: taken as zero")
    if empty:
        notes.add("doubtful", f"{empty} of {len(photons)} frames are empty")


class _Tally:
    """Per pixel, over the frames: how often it is shown, finite, full and negative."""

    def __init__(self, frames: np.ndarray, declared: np.ndarray | None, limit: float) -> None:
        side = frames.shape[1:]
        self.shown, self.finite, self.full, self.negative = (np.zeros(side, int) for _ in range(4))
        self.low, self.high = np.full(side, np.inf), np.full(side, -np.inf)
        self.top, self.top_times = 0.0, 0  # the largest value below the limit
        for rows, block in blocks(frames):
            shown = np.ones(block.shape, bool)
            if declared is not None:
                shown &= ~_rows(declared, rows)
            self.shown += shown.sum(0)
            shown &= np.isfinite(block)
            self.finite += shown.sum(0)
            self.full += (shown & (block >= limit)).sum(0)
            self._see_top(block[shown & (block < limit)])
            negative = shown & (block < 0)
            self.negative += negative.sum(0)
            self.low = np.minimum(self.low, np.where(negative, block, np.inf).min(0))
            self.high = np.maximum(self.high, np.where(negative, block, -np.inf).max(0))

    def _see_top(self, values: np.ndarray) -> None:
        top = float(values.max(initial=0))
        if top >= self.top:
            again = self.top_times if top == self.top else 0
            self.top, self.top_times = top, again + int((values == top).sum())


def _find_marks(
    frames: np.ndarray, power: int, declared: np.ndarray | None, where: str, notes: Notes
) -> _Marks:
    """Look for sentinels; ``power`` is 2 for amplitudes, whose squares are compared."""
    n, kind = len(frames), frames.dtype
    limit = float(np.iinfo(kind).max) if kind.kind in "iu" else np.inf
    if kind.kind == "u" and kind.itemsize > 1:
        limit -= 1  # the last but one marks a dead or a hot pixel
    limit = min(limit, (NO_COUNT * (1 - 1e-6)) ** (1 / power))
    tally = _Tally(frames, declared, limit)
    full = tally.full
    for scale in FULL_SCALES:
        # a small full scale may be reached by chance once or twice
        often = 1 if scale >= 65535 else 3
        if np.isclose(tally.top**power, scale, rtol=1e-6) and tally.top_times >= often:
            limit = tally.top
            full = full + sum((block >= limit).sum(0) for _, block in blocks(frames))
    gap = (tally.finite == 0) & (tally.shown > 0)
    if ((tally.finite < tally.shown) & ~gap).any():
        _refuse_scattered(frames, gap if declared is None else gap | declared, where)
    markers = (tally.negative > 0) & (tally.negative == tally.finite) & (tally.low == tally.high)
    if kind.kind == "i" and float(tally.low.min()) >= -2:
        markers = tally.negative > 0
    if full.any():
        always, some = int((full >= n).sum()), int(((full > 0) & (full < n)).sum())
        notes.add(
            "assumed",
            f"values of {limit**power:.6g} counts and more are the detector's full scale, not "
            f"photons: masked, {always} pixels in every frame (gaps, defects), {some} in some "
            "(saturated)",
        )
    if markers.any():
        mark = f"{tally.low[markers].min():g}"
        notes.add("assumed", f"{int(markers.sum())} pixels hold a negative marker ({mark}): masked")
    if gap.any():
        notes.add("assumed", f"{int(gap.sum())} pixels are NaN in every frame (a gap): masked")
    return _Marks(declared, limit, gap, markers)


def _refuse_scattered(frames: np.ndarray, hidden: np.ndarray, where: str) -> None:
    loose: list[int] = []
    for rows, block in blocks(frames):
        scattered = (~np.isfinite(block) & ~_rows(hidden, rows)).any((1, 2))
        loose += [rows.start + int(i) for i in np.nonzero(scattered)[0]]
    listed = ", ".join(map(str, loose[:8]))
    raise ValueError(
        f"{where}: {len(loose)} frames hold NaN or infinity (rows {listed}); drop them, or give "
        "bad_pixels that cover them"
    )


def check_mask_sense(bad: np.ndarray, frames: Any, where: str) -> None:
    """Refuse a mask that hides the light and shows the dark: its values are the other way round.

    Raises:
        ValueError: over half of the pixels are bad, and they hold over 95 % of the counts.
    """
    flat = bad if bad.ndim == 2 else bad.mean(0) > 0.5
    if not 0.5 < flat.mean() < 1:
        return
    mean = np.zeros(flat.shape)
    for _, block in blocks(frames):
        mean += np.nan_to_num(block.astype(np.float64), posinf=0, neginf=0).clip(0, 65534).sum(0)
    hidden = float(mean[flat].sum() / max(mean.sum(), 1e-30))
    if hidden > 0.95:
        raise ValueError(
            f"{where}: bad_pixels covers {100 * flat.mean():.0f} % of the detector and "
            f"{100 * hidden:.0f} % of the counts: it seems to mark the good pixels; "
            "--assume mask=good reads it so, --assume mask=bad as it is"
        )


def measurement_domain(
    frames: np.ndarray, declared: str | None, probe: np.ndarray | None, where: str, notes: Notes
) -> str:
    """``counts`` or ``amplitude``, and why, in the notes.

    A declared domain wins. Otherwise integer types are counts, and so are floats that are all whole
    and exceed 1: square roots of counts are not. Fractional values are amplitudes where their
    squares are whole; otherwise they are what the probe's power says: the photons of a frame are
    Σ X² of amplitudes and Σ X of counts.

    Raises:
        ValueError: the declared domain is unknown.
    """
    if declared is not None:
        if declared not in DOMAIN_NAMES:
            raise ValueError(
                f"{where}: measurement_domain {declared!r}; use amplitude or counts "
                "(normalized_amplitude, count_intensity)"
            )
        notes.add("found", f"frames are {DOMAIN_NAMES[declared]} (declared: {declared})")
        return DOMAIN_NAMES[declared]
    if frames.dtype.kind in "iub":
        notes.add("found", f"frames are counts (integer type {frames.dtype})")
        return "counts"
    rows = np.linspace(0, len(frames) - 1, min(len(frames), SAMPLE_FRAMES)).astype(int)
    sample = np.asarray(frames[rows], np.float64)
    sample = np.where(np.isfinite(sample) & (sample < NO_COUNT * (1 - 1e-6)), sample, 0)
    if bool(np.all(sample == np.rint(sample))) and float(sample.max(initial=0)) > 1:
        notes.add("found", "frames are counts (all values whole)")
        return "counts"
    squares = np.square(sample.clip(0))
    tolerance = 1e-3 + 1e-6 * squares  # of float32
    if float((np.abs(squares - np.rint(squares)) < tolerance).mean()) > 0.999 and squares.max() > 1:
        notes.add("found", "frames are amplitude (fractional values with whole squares)")
        return "amplitude"
    return _domain_by_power(sample, squares, probe, notes)


def _domain_by_power(
    sample: np.ndarray, squares: np.ndarray, probe: np.ndarray | None, notes: Notes
) -> str:
    """Fractional values with fractional squares: noise-free, scaled or subtracted."""
    if probe is None:
        notes.add("doubtful", "frames are taken as amplitude (fractional values)")
        return "amplitude"
    power = float((np.abs(probe) ** 2).sum())
    bright = [float(np.percentile(part.sum((1, 2)), 90)) / power for part in (squares, sample)]
    as_amplitude, as_counts = (abs(np.log10(max(ratio, 1e-30))) for ratio in bright)
    said = f"the probe's power is {power:.3g}, a bright frame's ΣX² {bright[0] * power:.3g} and "
    said += f"ΣX {bright[1] * power:.3g}"
    if as_counts < 0.5 and as_amplitude > 1:
        notes.add("assumed", f"frames are counts (fractional values; {said})")
        return "counts"
    sure = as_amplitude < 0.5 and as_counts > 1
    level: Literal["found", "doubtful"] = "found" if sure else "doubtful"
    notes.add(level, f"frames are amplitude (fractional values; {said})")
    return "amplitude"


def light_shares(mean: np.ndarray) -> tuple[float, float]:
    """Shares of an (N, N) image's sum in its middle, and in its corners, N/2 by N/2 each."""
    quarter = len(mean) // 4
    total = max(float(mean.sum()), 1e-30)
    inner = slice(quarter, len(mean) - quarter)
    centre = float(mean[inner, inner].sum()) / total
    return centre, float(np.fft.fftshift(mean)[inner, inner].sum()) / total


def check_zero_frequency(mean: np.ndarray, where: str) -> None:
    """Refuse frames whose light lies in the corners: their zero frequency is at [0, 0].

    Raises:
        ValueError: with the share of the corners.
    """
    centre, corners = light_shares(mean)
    if corners > 0.5 and corners > 4 * centre:
        raise ValueError(
            f"{where}: {100 * corners:.0f} % of the intensity lies in the frames' corners: zero "
            "frequency is at [0, 0], not at [N/2, N/2]; shift the frames (fftshift), or give "
            "--assume zero_frequency=corner"
        )


def hot_pixels(counts: np.ndarray, frames: int) -> np.ndarray:
    """(N, N) bool: pixels that count eight times as much as all pixels two away from them.

    Diffraction that is sampled well enough changes slowly from pixel to pixel; only the direct
    beam, near the middle, may be this sharp.

    Args:
        counts: (N, N) mean over the frames.
        frames: how many.
    """
    from scipy.ndimage import maximum_filter

    ring = np.ones((5, 5), bool)
    ring[1:4, 1:4] = False
    around = maximum_filter(counts, footprint=ring, mode="nearest")
    axis = np.arange(len(counts)) - len(counts) // 2
    outside = np.hypot(axis[:, None], axis) > len(counts) / 16
    return (counts > 8 * around) & (counts * frames > 25) & outside


def with_hot_pixels(
    bad: np.ndarray | None, counts: np.ndarray, frames: int, assume: Assumptions, notes: Notes
) -> np.ndarray | None:
    """The mask with the hot pixels, where the user wants that; else they are only named."""
    hot = hot_pixels(counts, frames)
    if not hot.any() or assume.hot_pixels == "keep":
        return bad
    places = ", ".join(f"({y}, {x})" for y, x in np.argwhere(hot)[:4])
    text = f"{int(hot.sum())} pixels look hot, e.g. row and column {places}"
    if assume.hot_pixels is None:
        notes.add("doubtful", f"{text}: --assume hot_pixels=mask leaves them out")
        return bad
    notes.add("assumed", f"{text}: masked (as said)")
    return hot if bad is None else bad | hot


class Amplitudes:
    """Frames as amplitudes: rows are converted as they are read, nothing is copied.

    Background is subtracted and bad pixels are zero, whatever the file holds there.

    Args:
        stored: (n, N, N) as in the file.
        domain: ``counts`` or ``amplitude``.
        bad: (N, N) or (n, N, N) bool, or None.
        dark: (N, N) counts without beam, or None.
    """

    dtype = np.dtype(np.float32)
    ndim = 3

    def __init__(
        self,
        stored: np.ndarray,
        domain: str,
        bad: np.ndarray | None = None,
        dark: np.ndarray | None = None,
    ) -> None:
        self.stored, self.domain, self.bad, self.dark = stored, domain, bad, dark
        self.shape = stored.shape

    def __len__(self) -> int:
        return len(self.stored)

    def __getitem__(self, rows: Any) -> np.ndarray:
        block = np.asarray(self.stored[rows], dtype=np.float32)
        if self.dark is not None:
            block = block - self.dark
        if self.domain == "counts":
            block = np.sqrt(np.clip(block, 0, None))
        if self.bad is not None:
            block = np.where(self.bad[rows] if self.bad.ndim == 3 else self.bad, 0, block)
        return block.astype(np.float32, copy=False)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        array = self[:]
        return array if dtype is None else array.astype(dtype)


def as_amplitude(
    frames: np.ndarray, domain: str, bad: np.ndarray | None, dark: np.ndarray | None = None
) -> Any:
    """Return frames (n, N, N) as amplitudes with bad pixels zero, lazily where they are mapped."""
    mapped = isinstance(frames, np.memmap) or isinstance(frames.base, np.memmap)
    if domain == "amplitude" and bad is None:
        return frames if mapped or frames.dtype == np.float32 else frames.astype(np.float32)
    lazy = Amplitudes(frames, domain, bad, dark)
    return lazy if mapped else lazy[:]


def mean_dark(
    dark: Any, side: tuple[int, ...], domain: str, where: str, notes: Notes
) -> np.ndarray:
    """(N, N) mean of the frames without beam.

    Raises:
        ValueError: another size, nothing finite, or a dark frame of amplitudes.
    """
    dark = np.asarray(dark, np.float64)
    if dark.shape[-2:] != side or not np.isfinite(dark).any():
        raise ValueError(f"{where}: data_dark has shape {dark.shape}; give {side} or (k, *{side})")
    if domain != "counts":
        raise ValueError(f"{where}: data_dark beside frames of {domain}; it belongs to counts")
    dark = np.nan_to_num(np.nanmean(dark.reshape(-1, *side), axis=0)).clip(0, FULL_SCALES[2] - 2)
    notes.add("assumed", f"the mean of data_dark, {dark.mean():.4g} counts a pixel, is subtracted")
    return dark.astype(np.float32)


# --- positions ---


def turned(coords: dict[str, np.ndarray], assume: Assumptions) -> dict[str, np.ndarray]:
    """Positions as the user says that they are to be read."""
    x, y = coords["xcoords"], coords["ycoords"]
    if assume.position_axes == "swapped":
        x, y = y, x
    if assume.position_sign in ("negated", "x-negated"):
        x = x.min() + x.max() - x
    if assume.position_sign in ("negated", "y-negated"):
        y = y.min() + y.max() - y
    return {"xcoords": x, "ycoords": y}


def typical_step(positions: np.ndarray) -> float:
    """Median distance of (n, 2) positions to their nearest neighbour; 0 for a single one."""
    from scipy.spatial import cKDTree

    if len(positions) < 2:
        return 0.0
    return float(np.median(cKDTree(positions).query(positions, k=2)[0][:, 1]))


def check_positions(coords: np.ndarray, size: int, where: str, notes: Notes) -> None:
    """Refuse positions that are no object pixels.

    Args:
        coords: (n, 2) in object pixels.
        size: N.
        where: for messages.
        notes: receives what is doubtful.

    Raises:
        ValueError: all equal, within one pixel (metres), with an outlier, or on a canvas beyond
            the memory.
    """
    if len(coords) < 2:
        return
    extent = np.ptp(coords, axis=0)
    if not extent.any():
        raise ValueError(
            f"{where}: all {len(coords)} positions are equal (x {coords[0, 0]:g}, y "
            f"{coords[0, 1]:g}); give each frame its own position in object pixels"
        )
    if extent.max() < 1:
        unit = "they look like metres" if extent.max() < 1e-2 else "they look like micrometres"
        raise ValueError(
            f"{where}: the positions span {extent.max():.3g} px, less than one: {unit}; give "
            "object pixels, metres divided by wavelength·distance/(N·detector pixel)"
        )
    away = np.linalg.norm(coords - np.median(coords, axis=0), axis=1)
    typical = float(np.median(away))
    far = np.nonzero(away > max(OUTLIER * typical, 4 * size))[0]
    if 0 < len(far) <= max(1, len(coords) // 20):
        row = int(far[np.argmax(away[far])])
        others = f" and {len(far) - 1} more" if len(far) > 1 else ""
        raise ValueError(
            f"{where}: position {row} at (x, y) = ({coords[row, 0]:.6g}, {coords[row, 1]:.6g}) px"
            f"{others} lies {away[row]:.3g} px from the scan's middle, the others within "
            f"{np.delete(away, far).max():.3g}; correct it or drop its frame"
        )
    step = typical_step(coords)
    canvas = float(np.prod(extent + size))
    if canvas > MAX_CANVAS_PX and canvas > 50 * len(coords) * size**2:
        raise ValueError(
            f"{where}: the positions span {extent[0]:.6g} x {extent[1]:.6g} px, "
            f"{canvas * 8 / 2**30:.0f} GiB of object for {len(coords)} frames of {size} px, and "
            f"neighbours lie {step:.3g} px apart; they look like nanometres or motor steps: give "
            "object pixels"
        )
    if step > size:
        notes.add(
            "doubtful",
            f"neighbouring positions lie {step:.4g} px apart, frames have {size} px: they share no "
            "part of the object",
        )
