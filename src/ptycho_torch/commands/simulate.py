"""Simulate a ptychographic scan with a known object and write it as a canonical NPZ.

Example:
    python scripts/simulate_ptycho.py scan.npz
    python scripts/simulate_ptycho.py scan.npz --scan spiral --photons 1e6 --rows 30
    python scripts/simulate_ptycho.py scan.npz --position-error-px 1 --modes 3 --start-modes 1
"""

from __future__ import annotations

import argparse
from pathlib import Path

from trainrig.cli import Parser, entry


def make_parser() -> argparse.ArgumentParser:
    """Return the command line; a flag left out keeps the default."""
    parser = Parser(description=__doc__)
    parser.add_argument("output", type=Path, help="NPZ file to write")
    parser.add_argument("--object", help="star, lines, field or mixed (default)")
    parser.add_argument("--scan", help="raster (default), spiral or random")
    parser.add_argument("--size", type=int, help="frame side in pixels: 64 (default), 128, 256")
    parser.add_argument("--rows", type=int, help="positions per side (default 20)")
    parser.add_argument("--step-px", type=float, help="scan step in object pixels (default 6)")
    parser.add_argument("--jitter-px", type=float, help="uniform position jitter (default 1.6)")
    parser.add_argument("--photons", type=float, help="photons per frame (default 1e5)")
    parser.add_argument("--pupil", type=float, help="probe pupil radius, cycles/px (default 0.17)")
    parser.add_argument("--defocus", type=float, help="probe defocus (default 45)")
    parser.add_argument("--modes", type=int, help="incoherent probe modes (default 1)")
    parser.add_argument("--start-modes", type=int, help="modes that the file gives (default all)")
    text = "error of the file's positions, standard deviation per axis (default 0)"
    parser.add_argument("--position-error-px", type=float, help=text)
    parser.add_argument("--seed", type=int, help="default 0")
    return parser


@entry
def main(argv: list[str] | None = None) -> int:
    """Simulate and write."""
    args = vars(make_parser().parse_args(argv))  # torch is imported after this line
    from ptycho_torch.physics.simulate import SimulationSettings, simulate
    from ptycho_torch.scan.npz_format import write_scan

    output = args.pop("output")
    settings = SimulationSettings(**{k: v for k, v in args.items() if v is not None})
    arrays = simulate(settings)
    write_scan(output, arrays, compressed=True)
    frames, obj = arrays["diff3d"], arrays["objectGuess"]
    counts = float((frames.astype(float) ** 2).sum((1, 2)).mean())
    side = frames.shape[1]
    print(f"{output}: {len(frames)} frames of {side} px, {counts:.0f} photons per frame")
    print(f"object {obj.shape[0]}x{obj.shape[1]} px, scan {settings.scan}, seed {settings.seed}")
    return 0
