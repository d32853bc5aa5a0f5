"""Convert a scan of any known format into the canonical NPZ, saying what was assumed.

The format is told by the content: NPZ of ours or of tike (also .bz2, .gz), CXI and NeXus, PtyPy's
.ptyd, the dp and para pair of pty-chi or fold_slice, PtyLab, MATLAB, Ptychodus's folder, or a YAML
file that describes raw stacks.

Example:
    python scripts/convert_ptycho.py siemens-star-small.npz.bz2 star.npz
    python scripts/convert_ptycho.py star.npz in --to-ptychodus --object out/reconstruction.npz
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ptycho_torch.study.cli import add_intake_flags, add_report_flags, set_log_level
from trainrig.cli import Parser, entry, positive_int


def make_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = Parser(description=__doc__)
    parser.add_argument("source", type=Path, help="file or folder to read")
    parser.add_argument("output", type=Path, help="NPZ file, or folder with --to-ptychodus")
    parser.add_argument("--to-ptychodus", action="store_true", help="write Ptychodus's input pair")
    parser.add_argument(
        "--object",
        type=Path,
        help="with --to-ptychodus: a reconstruction, or a scan with its objectGuess, whose object "
        "labels a supervised training (flat, that is unlabelled)",
    )
    parser.add_argument("--quiet", action="store_true", help="only warnings")
    parser.add_argument("--every", type=int, help="keep every k-th frame")
    add_intake_flags(parser)
    add_report_flags(parser)
    text = "write the intake report there (intake.html, .png, .json)"
    parser.add_argument("--report", type=Path, metavar="DIR", help=text)
    frames = parser.add_argument_group("every frame, before the scan is checked")
    frames.add_argument("--transpose", action="store_true", help="exchange rows and columns")
    text = "quarter turns against the clock"
    frames.add_argument("--rotate", type=int, default=0, metavar="K", help=text)
    text = "pixel of zero frequency (the middle)"
    frames.add_argument("--centre", type=int, nargs=2, metavar=("ROW", "COLUMN"), help=text)
    text = "side of the square that is kept; padded pixels are masked"
    frames.add_argument("--side", type=positive_int, metavar="N", help=text)
    text = "sum B x B detector pixels"
    frames.add_argument("--bin", type=positive_int, default=1, metavar="B", help=text)
    parser.add_argument("--view", type=int, help="which scan of a file that holds several")
    return parser


@entry
def main(argv: list[str] | None = None) -> int:
    """Read, check, write."""
    args = make_parser().parse_args(argv)  # torch is imported later
    import numpy as np

    from ptycho_torch.data.reshape import Reshape
    from ptycho_torch.raw_data import RawDataTorch
    from ptycho_torch.recon.trials import with_start_probe
    from ptycho_torch.scan.rules import Assumptions
    from ptycho_torch.study.convert import read_known_object
    from ptycho_torch.study.intake import write_intake

    set_log_level(args.quiet)

    if args.object is not None and not args.to_ptychodus:
        raise ValueError("--object: needs --to-ptychodus; an NPZ keeps its own objectGuess")
    centre = None if args.centre is None else (args.centre[0], args.centre[1])
    scan = RawDataTorch.from_file(
        args.source,
        assume=Assumptions.parse(args.assume),
        view=args.view,
        reshape=Reshape(args.transpose, args.rotate, centre, args.side, args.bin),
    )
    scan = with_start_probe(scan)
    if args.report is not None or args.check_orientation:
        folder = args.report or args.output.parent
        for line in write_intake(scan, folder, orientation=args.check_orientation):
            print(line)
    if args.every is not None:
        if args.every < 1:
            raise ValueError(f"--every {args.every}: must be at least 1")
        scan = scan.select(np.arange(0, len(scan), args.every))
    if args.to_ptychodus:
        from ptycho_torch.data.product_files import write_pair

        known: dict[str, Any] = {}
        if args.object is not None:
            known["obj"], known["origin_xy"] = read_known_object(args.object)
        write_pair(args.output, scan, name=args.source.name.split(".")[0], **known)
    else:
        scan.to_file(args.output, compressed=True)
    low, high = scan.coords.min(0), scan.coords.max(0)
    print(f"{args.output}: {len(scan)} frames of {scan.N} px, {len(scan.probe_modes)} probe modes")
    print(f"positions x {low[0]:.1f}..{high[0]:.1f} px, y {low[1]:.1f}..{high[1]:.1f} px")
    return 0
