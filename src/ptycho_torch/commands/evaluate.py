"""Score a reconstruction against the scan's true object, or against the other half of the frames.

The scan's objectGuess is the truth. Registered, phase plane removed, amplitude scaled; SSIM, MAE,
PSNR, MS-SSIM and Fourier ring correlation with the 1/2-bit threshold go to metrics.json and
evaluation.png beside the reconstruction. --against gives the half-data resolution (half_data.json,
half_data.png) of two reconstructions made by infer_ptycho.py --half-data.

Example:
    python scripts/evaluate_ptycho.py runs/ptycho/first/reconstruction.npz --truth scan.npz
    python scripts/evaluate_ptycho.py out/half_1.npz --against out/half_2.npz --centre-px 256
"""

from __future__ import annotations

import argparse
from pathlib import Path

from trainrig.cli import Parser, entry


def make_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = Parser(description=__doc__)
    parser.add_argument("reconstruction", type=Path, help="reconstruction.npz or product.*.h5")
    against = parser.add_mutually_exclusive_group(required=True)
    against.add_argument("--truth", type=Path, help="scan with the true objectGuess")
    against.add_argument("--against", type=Path, help="reconstruction of the other half's frames")
    parser.add_argument("--output-dir", type=Path, help="beside the reconstruction by default")
    parser.add_argument(
        "--centre-px", type=int, help="score only the central square of this side / px"
    )
    parser.add_argument(
        "--margin-px", type=float, default=0.0, help="beyond the positions' box / px (0)"
    )
    text = "what is aligned before scoring (amplitude)"
    choices = ("amplitude", "phasor")
    parser.add_argument("--register-by", default="amplitude", choices=choices, help=text)
    return parser


@entry
def main(argv: list[str] | None = None) -> int:
    """Evaluate and print the scores."""
    args = make_parser().parse_args(argv)  # torch is imported after this line
    from ptycho_torch.study.scoring import compare_halves, compare_with_truth

    region = {"centre_px": args.centre_px, "margin_px": args.margin_px}
    if args.against is not None:
        lines = compare_halves(args.reconstruction, args.against, args.output_dir, **region)
    else:
        lines = compare_with_truth(
            args.reconstruction, args.truth, args.output_dir, by=args.register_by, **region
        )
    for line in lines:
        print(line)
    return 0
