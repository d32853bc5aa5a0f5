r"""Reconstruct a scan: with a trained network, refined by iterations, or by iterations alone.

Left in the output folder: reconstruction.npz, reconstructed_amplitude.png,
reconstructed_phase.png; with --refine also refinement.npz; with --uncertainty also
reconstructed_uncertainty.png.

Example:
    python scripts/infer_ptycho.py --model_path runs/ptycho/first --test_data scan.npz \
        --output_dir runs/ptycho/first/inference --refine 40
    python scripts/infer_ptycho.py --test_data scan.npz --output_dir out --refine 60
"""

from __future__ import annotations

from trainrig.cli import Parser, entry, given_flags
from trainrig.terminal import print_config


def make_parser() -> Parser:
    """Return the command line; ``None`` means "keep the default"."""
    from ptycho_torch.study.inference_cli import add_inference_flags

    parser = Parser(description=__doc__)
    add_inference_flags(parser)
    return parser


@entry
def main(argv: list[str] | None = None) -> int:
    """Reconstruct and save."""
    from ptycho_torch.study.inference_cli import (
        infer_from_args,
        parse_inference_args,
        trace_inference,
    )

    parser = make_parser()
    args = parse_inference_args(parser, argv)  # torch is imported later: --help is instant
    if args.print_config:
        return print_config(trace_inference(args, given_flags(parser, args)).rows())
    for line in infer_from_args(args):
        print(line, flush=True)
    return 0
