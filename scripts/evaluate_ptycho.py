"""Score a reconstruction against the scan's true object and draw the comparison.

The scan's objectGuess is the truth. Registered, phase plane removed, amplitude scaled; SSIM, MAE,
PSNR, MS-SSIM and Fourier ring correlation with the 1/2-bit threshold go to metrics.json and
evaluation.png beside the reconstruction.

Example:
    python scripts/evaluate_ptycho.py runs/ptycho/first/reconstruction.npz --truth scan.npz
"""

from __future__ import annotations

import argparse
from pathlib import Path

from trainrig.cli import Parser, entry


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(description=__doc__)
    parser.add_argument("reconstruction", type=Path, help="reconstruction.npz")
    parser.add_argument("--truth", type=Path, required=True, help="scan with the true objectGuess")
    parser.add_argument("--output-dir", type=Path, help="beside the reconstruction by default")
    parser.add_argument("--centre-px", type=int, help="score only the central square of this side")
    parser.add_argument("--margin-px", type=float, default=0.0, help="beyond the positions' box")
    parser.add_argument("--register-by", default="amplitude", choices=("amplitude", "phasor"))
    return parser.parse_args(argv)


@entry
def main(argv: list[str] | None = None) -> int:
    """Evaluate and print the scores."""
    args = parse_args(argv)  # torch is imported after this line
    from ptycho_torch.cli import evaluate_from_args

    for line in evaluate_from_args(args):
        print(line)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
