"""From what a beamline records, in SI units, to the arrays of a canonical scan.

A far-field model needs frames that hold the beam: the beam must be wider than the scan step, or
neighbouring frames share nothing, and narrower than wavelength·z/(2·detector pixel), or its
diffraction is undersampled. Their quotient, the Fresnel number of one step seen through one
detector pixel, F = step·pixel/(wavelength·z), must therefore stay below 1/2; near-field
recordings exceed it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ptycho_torch.scan.rules import Assumptions, Notes, typical_step

HC_EV_M = 1.239841984e-6  # Planck constant times speed of light, in eV·m (CODATA 2018)
EV_J = 1.602176634e-19
LIMIT = 0.5
#: Units of length and energy as files spell them, in metres and electronvolts.
LENGTHS = {
    **{"m": 1.0, "meter": 1.0, "metre": 1.0, "meters": 1.0, "metres": 1.0, "cm": 1e-2, "mm": 1e-3},
    **{
        "um": 1e-6,
        "µm": 1e-6,
        "μm": 1e-6,
        "micron": 1e-6,
        "microns": 1e-6,
        "nm": 1e-9,
        "pm": 1e-12,
    },
    **{"angstrom": 1e-10, "angstroms": 1e-10, "a": 1e-10, "\u00e5": 1e-10},
}
ENERGIES = {"j": 1 / EV_J, "joule": 1 / EV_J, "joules": 1 / EV_J, "ev": 1.0, "kev": 1e3, "mev": 1e6}
PHOTON_EV = (10.0, 1e6)  # what a beam's energy may be, electrons included


@dataclass(frozen=True)
class FarField:
    """Geometry of a far-field measurement."""

    energy_ev: float = 8000.0
    distance_m: float = 2.0
    detector_pixel_m: float = 75e-6

    def object_pixel_m(self, size: int) -> float:
        """λ·z/(N·detector pixel)."""
        return HC_EV_M / self.energy_ev * self.distance_m / (size * self.detector_pixel_m)


@dataclass
class Recorded:
    """One scan as recorded.

    Attributes:
        frames: (n, N, N) as stored, zero frequency in the middle.
        positions_m: (n, 2) where the beam is on the sample, along columns and rows of the frames.
        pixel_m: object pixel along columns and rows, where the file gives it.
        energy_ev, distance_m, detector_pixel_m: geometry, where it does not.
        bad: mask as stored (True or not 0 is bad).
        dark: frames without beam.
        probe: (N, N) or (m, N, N), in whatever unit.
        domain: of the frames, where the format defines it.
    """

    frames: np.ndarray
    positions_m: np.ndarray
    pixel_m: tuple[float, float] | None = None
    energy_ev: float | None = None
    distance_m: float | None = None
    detector_pixel_m: tuple[float, float] | None = None
    bad: np.ndarray | None = None
    dark: np.ndarray | None = None
    probe: np.ndarray | None = None
    domain: str | None = None


def length_m(value: float, unit: str | None, name: str, where: str) -> float:
    """A length in metres.

    Raises:
        ValueError: an unknown unit, or a length that no experiment has.
    """
    factor = LENGTHS.get((unit or "m").strip().lower())
    if factor is None:
        raise ValueError(f"{where}: {name} is in {unit!r}; known are m, mm, um, nm, angstrom")
    low, high = {"distance": (1e-4, 200.0)}.get(name, (1e-8, 1e-2))
    if low <= value * factor <= high:
        return value * factor
    likely = [u for u in ("mm", "um", "cm") if low <= value * LENGTHS[u] <= high]
    hint = f": it looks like {likely[0]}" if likely and unit is None else ""
    raise ValueError(
        f"{where}: {name} {value * factor:.4g} m lies outside {low:g} to {high:g} m{hint}; "
        "give metres"
    )


def energy_ev(value: float, unit: str | None, where: str, assume: Assumptions) -> float:
    """A beam's energy in electronvolts; joules where neither file nor user names a unit.

    Raises:
        ValueError: an unknown unit, or an energy that no beam has.
    """
    said = assume.energy_unit or unit
    factor = ENERGIES.get((said or "J").strip().lower())
    if factor is None:
        raise ValueError(f"{where}: energy is in {unit!r}; known are J, eV, keV")
    low, high = PHOTON_EV
    if low <= value * factor <= high:
        return value * factor
    if said is None and value > 0:
        fits = [u for u in ("eV", "keV") if low <= value * ENERGIES[u.lower()] <= high]
        if fits:
            units = " or ".join(fits if value < 100 else fits[:1])
            raise ValueError(
                f"{where}: energy {value:g} looks like {units}; CXI wants joules: --assume "
                f"energy_unit={fits[0] if value >= 100 else fits[-1]} reads it so"
            )
    raise ValueError(
        f"{where}: energy {value:g} {said or 'J'} is {value * factor:.3g} eV; a beam has "
        f"{low:g} to {high:g} eV"
    )


def fresnel_number(step_m: float, pixel_m: float, wavelength_m: float, distance_m: float) -> float:
    """step·pixel/(wavelength·z)."""
    return step_m * pixel_m / (wavelength_m * distance_m)


def _object_pixel(scan: Recorded, side: int, where: str, notes: Notes) -> tuple[float, float]:
    if scan.pixel_m is not None:
        return scan.pixel_m
    missing = [
        name
        for name, value in (
            ("energy or wavelength", scan.energy_ev),
            ("distance", scan.distance_m),
            ("detector pixel size", scan.detector_pixel_m),
        )
        if value is None
    ]
    if missing:
        raise KeyError(f"{where}: missing {', '.join(missing)}; give a file with its geometry")
    assert scan.energy_ev is not None  # checked above
    assert scan.distance_m is not None
    assert scan.detector_pixel_m is not None
    wavelength = HC_EV_M / scan.energy_ev
    step = typical_step(scan.positions_m)
    number = fresnel_number(step, max(scan.detector_pixel_m), wavelength, scan.distance_m)
    if number > LIMIT:
        raise ValueError(
            f"{where}: near field, Fresnel number step·pixel/(wavelength·z) = {number:.2f} (step "
            f"{step:.3g} m, pixel {max(scan.detector_pixel_m):.3g} m, energy {scan.energy_ev:.4g} "
            f"eV, z {scan.distance_m:.3g} m); the far-field model accepts at most {LIMIT}: use a "
            "near-field program"
        )
    x, y = (wavelength * scan.distance_m / (side * p) for p in scan.detector_pixel_m)
    notes.add(
        "found",
        f"energy {scan.energy_ev:.5g} eV, distance {scan.distance_m:.4g} m, detector pixel "
        f"{scan.detector_pixel_m[0] * 1e6:.4g} um: object pixel {x * 1e9:.4g} nm",
    )
    if abs(x / y - 1) > 1e-3:
        notes.add("assumed", f"object pixels are not square: {x * 1e9:.4g} by {y * 1e9:.4g} nm")
    return x, y


def canonical_arrays(
    scan: Recorded, where: str, notes: Notes, assume: Assumptions
) -> dict[str, np.ndarray]:
    """The arrays of a canonical scan; positions become object pixels, the smallest at N/2.

    Raises:
        KeyError: the geometry is missing.
        ValueError: near field, a length or energy that cannot be.
    """
    frames, size = scan.frames, int(scan.frames.shape[-1])
    positions = np.asarray(scan.positions_m, np.float64)
    if not np.isfinite(positions).all():
        rows = np.nonzero(~np.isfinite(positions).all(1))[0]
        raise ValueError(
            f"{where}: positions of rows {rows[:8].tolist()} are not finite; drop them"
        )
    if assume.position_unit == "px":
        pixels = positions
    else:
        positions = positions * LENGTHS[assume.position_unit or "m"]
        scan.positions_m = positions
        pixels = positions / np.asarray(_object_pixel(scan, size, where, notes))
    pixels = pixels - pixels.min(0) + size / 2
    arrays = {"xcoords": pixels[:, 0], "ycoords": pixels[:, 1], "diff3d": frames}
    domain = assume.domain or scan.domain
    if domain is not None:
        arrays["measurement_domain"] = np.array(domain)
    if scan.bad is not None:
        arrays["bad_pixels"] = scan.bad
    if scan.dark is not None:
        arrays["data_dark"] = scan.dark
    if scan.probe is not None:
        arrays["probeGuess"] = scan.probe
    arrays["probe_unit"] = np.array("none" if scan.probe is None else "relative")
    return arrays
