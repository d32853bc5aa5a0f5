"""The flags of ``infer_ptycho.py`` and what they run; torch is imported only when running.

Precedence: explicit flag, then YAML file, then default.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptycho_torch.config.flag_texts import TEXTS
from ptycho_torch.study.cli import (
    REFINEMENT,
    add_intake_flags,
    add_refine_flags,
    add_report_flags,
    plain_fields,
    refine_settings,
    set_log_level,
)
from trainrig.cli import Parser, add_print_config_flag, positive_int
from trainrig.config import Traced, read_yaml
from trainrig.errors import nearest
from trainrig.launch.options import LaunchOptions, add_launch_flags, launch_options

if TYPE_CHECKING:
    from ptycho_torch.raw_data import RawDataTorch
    from ptycho_torch.recon.pipeline import Method
    from trainrig.sweep import Task

logger = logging.getLogger(__name__)


def add_inference_flags(parser: Any) -> None:
    """Flags of ``infer_ptycho.py``."""
    parser.add_argument("--config", type=Path, help="YAML whose keys are flags of this script")
    parser.add_argument("--model_path", type=Path, help="training folder, wts.h5.zip or .ckpt")
    parser.add_argument("--test_data", type=Path, required=True, help="scan, of any known format")
    text = "folder of all results (inference_outputs)"
    parser.add_argument("--output_dir", type=Path, default=Path("inference_outputs"), help=text)
    parser.add_argument(
        "--n_images", "--n_groups", dest="n_images", type=positive_int, help="groups to use"
    )
    parser.add_argument("--n_subsample", type=int, help="frames kept before grouping")
    parser.add_argument("--subsample_seed", type=int, help=TEXTS["subsample_seed"])
    text = f"{TEXTS['accelerator']} (auto)"
    flags = ("--accelerator", "--torch-accelerator", "--device")
    parser.add_argument(*flags, default="auto", help=text)
    parser.add_argument(
        "--inference-batch-size", type=positive_int, help=TEXTS["inference_batch_size"]
    )
    parser.add_argument(
        "--middle-trim", type=positive_int, help="side of a patch's stitched centre / px"
    )
    parser.add_argument("--uncertainty", type=int, metavar="N", help="simulations for an error map")
    parser.add_argument("--half-data", action="store_true", help="resolution from two halves")
    text = "feed frames in chunks of B"
    parser.add_argument("--stream", type=positive_int, metavar="B", help=text)
    parser.add_argument(
        "--preview-every-epochs",
        type=positive_int,
        default=0,
        metavar="E",
        help="draw the object every E epochs of the refinement",
    )
    parser.add_argument("--phase_vmin", type=float, help="lowest phase of the picture / rad")
    parser.add_argument("--phase_vmax", type=float, help="highest phase of the picture / rad")
    parser.add_argument("--comparison_plot", action="store_true", help="evaluate against the truth")
    parser.add_argument("--trust-pickle", action="store_true", help="read pickled archives")
    text = "refused: its archives are read by its own program"
    parser.add_argument(
        "--backend", default="pytorch", help=f"pytorch (default); tensorflow: {text}"
    )
    text = "accepted from the reference; frames are read by the process itself"
    parser.add_argument(
        "--num-workers", "--torch-num-workers", dest="num_workers", type=int, help=text
    )
    parser.add_argument("--debug", action="store_true", help="also say the settings")
    text = "save the network's first inputs and patches there"
    parser.add_argument("--debug_dump", type=Path, metavar="FILE.npz", help=text)
    parser.add_argument("--quiet", action="store_true", help="no progress lines")
    parser.add_argument("--seed", type=int, default=0, help="of draws and iterations (0)")
    add_intake_flags(parser)
    add_report_flags(parser)
    add_print_config_flag(parser)
    add_refine_flags(parser.add_argument_group("refinement"))
    add_launch_flags(parser, "where the simulations of --uncertainty are carried out (--jobs 1)")


def parse_inference_args(parser: Parser, argv: list[str] | None) -> argparse.Namespace:
    """Read the command line over the YAML file that it may name.

    Raises:
        ValueError: the file has a key that is no flag, or a value of another kind.
    """
    early = Parser(add_help=False)
    early.add_argument("--config", type=Path)
    path = early.parse_known_args(argv)[0].config
    if path is not None:
        values = read_yaml(path)
        known = {action.dest: action for action in parser._actions}
        for key, value in values.items():
            if key not in known or key in ("help", "config"):
                raise ValueError(f"{path}: unknown key {key!r}{nearest(key, known)}")
            if isinstance(value, bool) != (known[key].nargs == 0):
                kind = "true or false" if known[key].nargs == 0 else "no true or false"
                raise ValueError(f"{path}: {key} is {value!r}; {kind} is expected")
            known[key].required = False
            numeric = isinstance(value, int | float) and not isinstance(value, bool)
            parser.set_defaults(**{key: str(value) if numeric else value})  # typed as a flag's text
    return parser.parse_args(argv)


def trace_inference(
    args: argparse.Namespace, names: Mapping[str, str]
) -> Traced[dict[str, dict[str, Any]]]:
    """Return the settings of a reconstruction, and where each came from; reads no scan.

    Args:
        args: the command line.
        names: name in ``args`` → flag, for those given.
    """
    said = dict.fromkeys(read_yaml(args.config) if args.config else (), str(args.config)) | {
        **names
    }
    refinement = plain_fields(refine_settings(args))
    inference = {
        key: str(value) if isinstance(value, Path) else value
        for key, value in vars(args).items()
        if key not in REFINEMENT and key not in ("config", "print_config", "seed")
    }
    origins = {f"inference.{key}": said[key] for key in inference if key in said}
    for flag, key in {**REFINEMENT, "seed": "seed"}.items():
        if flag in said:
            origins[f"refinement.{key}"] = said[flag]
    if args.model_path is not None:
        from ptycho_torch.recon.persistence import load_model

        settings = load_model(args.model_path, trust_pickle=args.trust_pickle).inference_config
        for key, own in (("middle_trim", "middle_trim"), ("inference_batch_size", "batch_size")):
            if inference[key] is None:
                inference[key] = getattr(settings, own)
                origins[f"inference.{key}"] = "the model"
    return Traced({"inference": inference, "refinement": refinement}, origins)


def scan_of(args: argparse.Namespace) -> RawDataTorch:
    """The scan that the flags name.

    Raises:
        ValueError: a scan that cannot be, or of one frame where it is to be halved.
    """
    from ptycho_torch.raw_data import load_data
    from ptycho_torch.recon.trials import with_start_probe
    from ptycho_torch.scan.rules import Assumptions

    scan = load_data(
        args.test_data,
        n_subsample=args.n_subsample,
        subsample_seed=args.subsample_seed,
        assume=Assumptions.parse(args.assume),
    )
    if args.half_data and len(scan) < 2:
        raise ValueError(f"--half-data: {args.test_data} has {len(scan)} frame; at least 2 frames")
    return with_start_probe(scan)


def infer_from_args(args: argparse.Namespace) -> Iterator[str]:
    """Reconstruct with the network, the iterations, or both; yields lines to print."""
    set_log_level(args.quiet, args.debug)
    from ptycho_torch.recon.inference import dump_batch
    from ptycho_torch.recon.pipeline import method_of
    from ptycho_torch.study.repetitions import estimate_uncertainty
    from ptycho_torch.study.scoring import compare_halves, compare_with_truth
    from ptycho_torch.train.report import save_halves
    from ptycho_torch.train.workflows import check_backend

    check_backend(args.backend)
    if args.backend != "pytorch":
        raise ValueError("--backend tensorflow: use ptycho's own ptycho_inference for its archives")
    if args.model_path is None and not args.refine:
        raise ValueError("--model_path: missing; give a trained model, or --refine N without one")
    settings = refine_settings(args)
    scan = scan_of(args)
    method = method_of(args, settings)
    _log_settings(method, scan)
    if args.debug_dump is not None:
        if method.model is None:
            raise ValueError("--debug_dump: needs --model_path; there is no network to look into")
        dump_batch(method.model, scan, args.debug_dump)
    tasks, options = _launched(args, method, scan)
    limits = {"vmin": args.phase_vmin, "vmax": args.phase_vmax}
    if not (options.dry_run or options.attach):  # else it is there already, or not wanted
        yield from _reconstruct(args, method, scan, limits)
    if tasks:
        yield from estimate_uncertainty(tasks, options, scan, args.output_dir, limits)
    if options.dry_run:
        return
    if args.half_data:
        yield from compare_halves(*save_halves(method, scan, args.output_dir, args.seed))
    if args.comparison_plot:
        yield from compare_with_truth(args.output_dir / "reconstruction.npz", args.test_data)


def _reconstruct(
    args: argparse.Namespace, method: Method, scan: RawDataTorch, limits: dict[str, float | None]
) -> Iterator[str]:
    from ptycho_torch.study.intake import write_intake
    from ptycho_torch.train.report import save_outputs

    for line in write_intake(scan, args.output_dir, orientation=args.check_orientation):
        logger.info("%s", line)
    found = method.network(scan, args.seed)
    if found is not None:
        yield f"network: {len(scan)} frames, {found.patterns_per_s:.0f} patterns/s"
    yield from save_outputs(
        method,
        scan,
        found,
        args.output_dir,
        seed=args.seed,
        phase_limits=limits,
        preview_every_epochs=args.preview_every_epochs,
    )


def _log_settings(method: Method, scan: RawDataTorch) -> None:
    logger.debug("%s", method.settings)
    logger.debug("positions %s to %s px", scan.coords.min(0), scan.coords.max(0))
    if method.model is not None:
        for config in ("model_config", "data_config", "inference_config"):
            logger.debug("%s", getattr(method.model, config))


def _launched(
    args: argparse.Namespace, method: Method, scan: RawDataTorch
) -> tuple[list[Task], LaunchOptions]:
    """Return the repetitions of ``--uncertainty``, none without, and who carries them out.

    Raises:
        ValueError: a launcher without repetitions, or as ``repetition_tasks``.
    """
    import torch

    from ptycho_torch.study.repetitions import repetition_tasks

    args.jobs = args.jobs or 1  # a worker takes longer to start than most repetitions to make
    options = launch_options(args).resolved(torch.device(method.device), 1)
    if args.uncertainty is not None:
        alone = options.launcher == "local" and options.jobs == 1
        threads = torch.get_num_threads() if alone else 1
        return repetition_tasks(args, method, scan, threads), options
    if options.launcher != "local" or options.dry_run:
        raise ValueError(
            "--launcher, --dry-run: the reconstruction itself is made here; they are for the "
            "repetitions of --uncertainty N"
        )
    return [], options
