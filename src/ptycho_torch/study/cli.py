"""The flags of ``train_ptycho.py`` and what they run; torch is imported only when running.

Precedence: explicit flag, then YAML file, then default. Every canonical field is a flag under its
own name; booleans are ``--flag`` and ``--no-flag``.
"""

from __future__ import annotations

import argparse
import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptycho_torch.config.canonical import ModelConfig, TrainingConfig
from ptycho_torch.config.execution import ExecutionConfig
from ptycho_torch.config.flag_texts import TEXTS
from trainrig.cli import add_init_flags, add_print_config_flag, positive_int
from trainrig.config import InitConfig, Traced, read_yaml
from trainrig.errors import DivergedError, nearest, require

if TYPE_CHECKING:
    from ptycho_torch.raw_data import RawDataTorch

TYPES = {"int": int, "float": float, "str": str, "Path": Path}
EXTRA_SPELLINGS = {
    "nepochs": ("--max-epochs", "--epochs"),
    "scheduler": ("--torch-scheduler",),
    "plateau_factor": ("--torch-plateau-factor",),
    "plateau_patience": ("--torch-plateau-patience",),
    "plateau_min_lr": ("--torch-plateau-min-lr",),
    "plateau_threshold": ("--torch-plateau-threshold",),
}
EXECUTION_FLAGS: dict[str, tuple[str, ...]] = {
    "accelerator": ("--accelerator", "--torch-accelerator", "--device"),
    "devices": ("--devices",),
    "strategy": ("--strategy",),
    "precision": ("--precision",),
    "accum_steps": ("--accumulate-grad-batches", "--torch-accumulate-grad-batches"),
    "num_workers": ("--num-workers", "--torch-num-workers"),
    "overlap_frames": ("--overlap-frames",),
    "learning_rate": ("--learning-rate", "--torch-learning-rate", "--lr"),
    "checkpoint_save_top_k": ("--checkpoint-save-top-k", "--torch-checkpoint-save-top-k"),
    "checkpoint_monitor_metric": ("--checkpoint-monitor",),
    "checkpoint_mode": ("--checkpoint-mode",),
    "early_stop_patience": ("--early-stop-patience",),
    "logger_backend": ("--logger", "--torch-logger", "--tracker"),
    "inference_batch_size": ("--inference-batch-size",),
    "preview_every_epochs": ("--preview-every-epochs",),
    "seed": ("--seed",),
}
EXECUTION_SWITCHES: dict[str, tuple[str, ...]] = {
    "deterministic": ("--deterministic", "--torch-deterministic"),
    "enable_checkpointing": ("--enable-checkpointing", "--torch-enable-checkpointing"),
    "enable_progress_bar": ("--progress-bar",),
    "log_patch_stats": ("--log-patch-stats",),
}
#: Flag of the refinement → field of ``RefineSettings``.
REFINEMENT = {
    "refine": "epochs",
    "refine_batch_size": "batch_size",
    "refine_loss": "loss",
    "refine_smoothness": "smoothness",
    "learn_probe": "learn_probe",
    "learn_positions": "learn_positions",
    "learn_background": "learn_background",
}


def _kind(annotation: str) -> str:
    return annotation.split("|")[0].strip()


def _add_fields(parser: Any, cls: type, skip: tuple[str, ...] = ()) -> None:
    for item in fields(cls):
        if item.name in skip or item.name == "model":
            continue
        names = (f"--{item.name}", *EXTRA_SPELLINGS.get(item.name, ()))
        default = "" if item.default is None else f" ({item.default})"
        text = TEXTS[item.name] + ("" if item.default is MISSING else default)
        kind = _kind(str(item.type))
        if kind == "bool":
            action = argparse.BooleanOptionalAction
            parser.add_argument(*names, dest=item.name, action=action, default=None, help=text)
        else:
            parser.add_argument(*names, dest=item.name, type=TYPES[kind], help=text)


def add_refine_flags(parser: Any) -> None:
    """Flags of the iterative refinement, for both scripts."""
    parser.add_argument("--refine", type=int, metavar="N", help="epochs of iterative refinement")
    parser.add_argument("--refine-batch-size", type=int, help="frames per update (32)")
    parser.add_argument("--refine-loss", help="amplitude (default) or poisson")
    parser.add_argument("--refine-smoothness", type=float, help="weight of squared gradients (0)")
    for what in ("probe", "positions", "background"):
        flag, text = f"--learn-{what}", f"refine the {what} too"
        parser.add_argument(flag, action="store_true", default=None, help=text)
    parser.add_argument("--probe-modes", type=int, help="incoherent modes while refining")


def add_intake_flags(parser: Any) -> None:
    """Flags of every script that reads a scan."""
    text = (
        "decide what the file leaves open: domain, energy_unit, zero_frequency, mask, frames_axis, "
    )
    text += "position_unit, position_sign, position_axes or probe (docs/ptychography.md)"
    parser.add_argument("--assume", action="append", metavar="KEY=VALUE", help=text)


def add_report_flags(parser: Any) -> None:
    """Flags of the scripts that check a scan against its frames."""
    text = "also try the orientations of the positions on a part of the scan"
    parser.add_argument("--check-orientation", action="store_true", help=text)


def add_training_flags(parser: Any, *, several: bool = False) -> None:
    """Flags of ``train_ptycho.py``; ``several`` trainings choose their seeds and resume anyway."""
    parser.add_argument("--config", type=Path, help="YAML with training, model and execution keys")
    model = parser.add_argument_group("model")
    _add_fields(model, ModelConfig)
    training = parser.add_argument_group("training")
    _add_fields(training, TrainingConfig)
    run = parser.add_argument_group("execution")
    for name, flags in EXECUTION_FLAGS.items():
        if several and name == "seed":
            parser.set_defaults(seed=None)
            continue
        kind = _kind(str(next(f.type for f in fields(ExecutionConfig) if f.name == name)))
        run.add_argument(*flags, dest=name, type=TYPES[kind], help=_text(name))
    switch = argparse.BooleanOptionalAction
    for name, flags in EXECUTION_SWITCHES.items():
        run.add_argument(*flags, dest=name, action=switch, default=None, help=_text(name))
    text = "save the end alone"
    run.add_argument(
        "--disable-checkpointing", dest="enable_checkpointing", action="store_false", help=text
    )
    run.add_argument("--disable_mlflow", action="store_true", help="deprecated: --logger none")
    run.add_argument("--quiet", action="store_true", help="no progress lines")
    text = "torch threads of each training (1)" if several else "torch threads (torch's choice)"
    run.add_argument("--threads", type=positive_int, help=text)
    text = "continue what is in the folder, if anything (always done)"
    run.add_argument("--resume", action="store_true", help=text)
    if not several:
        text = "remove the training in the folder first"
        run.add_argument("--overwrite", action="store_true", help=text)
        add_init_flags(parser)
    add_intake_flags(run)
    run.add_argument(
        "--mapped", action="store_true", help="keep the frames on disk: sets larger than RAM"
    )
    if not several:
        text = "write a reconstruction (True)"
        run.add_argument("--do_stitching", action=switch, default=True, help=text)
    add_print_config_flag(run)
    add_refine_flags(parser.add_argument_group("refinement of the reconstruction"))


def _text(name: str) -> str:
    default = next(item.default for item in fields(ExecutionConfig) if item.name == name)
    return TEXTS[name] + ("" if default is None else f" ({default})")


def _yaml(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    flat: dict[str, Any] = {}
    for key, value in read_yaml(path).items():
        flat.update(value if isinstance(value, dict) else {key: value})
    known = {f.name for cls in (ModelConfig, TrainingConfig, ExecutionConfig) for f in fields(cls)}
    for key in flat:
        if key not in known:
            raise ValueError(f"{path}: unknown key {key!r}{nearest(key, known)}")
    return flat


def resolve_training(
    args: argparse.Namespace, frame_side: int | None = None
) -> tuple[TrainingConfig, ExecutionConfig]:
    """Flag over YAML over default; without N the frames' own side is used."""
    values = _yaml(args.config)
    given = {key: value for key, value in vars(args).items() if value is not None}
    values.update(given)
    if args.disable_mlflow:
        warnings.warn("--disable_mlflow is deprecated; use --logger none", stacklevel=2)
        values["logger_backend"] = "none"
    if frame_side is not None:
        values.setdefault("N", frame_side)

    def part(cls: type) -> dict[str, Any]:
        kinds = {f.name: _kind(str(f.type)) for f in fields(cls) if f.name != "model"}
        return {
            key: Path(values[key]) if kind == "Path" else values[key]
            for key, kind in kinds.items()
            if key in values
        }

    training = TrainingConfig(model=ModelConfig(**part(ModelConfig)), **part(TrainingConfig))
    training.backend = values.get("backend", "pytorch")
    execution = ExecutionConfig(**part(ExecutionConfig))
    return training, execution


def trace_training(
    args: argparse.Namespace, names: Mapping[str, str]
) -> Traced[dict[str, dict[str, Any]]]:
    """Return the settings of a training, and where each came from; reads no scan.

    Args:
        args: the command line.
        names: field → flag, for those given.
    """
    training, execution = resolve_training(args)
    parts = {"model": training.model, "training": training, "execution": execution}
    tree = {section: plain_fields(part) for section, part in parts.items()}
    in_file = _yaml(args.config)
    origins = {}
    for section, values in tree.items():
        for key in values:
            if key in names:
                origins[f"{section}.{key}"] = names[key]
            elif key in in_file:
                origins[f"{section}.{key}"] = str(args.config)
    for section, key, text in (("model", "N", "their own side"), ("training", "n_groups", "all")):
        if f"{section}.{key}" not in origins:
            tree[section][key], origins[f"{section}.{key}"] = text, "the frames"
    return Traced(tree, origins)


def plain_fields(part: Any) -> dict[str, Any]:
    """Return a dataclass's fields, paths as texts, without the model that a training holds."""
    values = {f.name: getattr(part, f.name) for f in fields(part) if f.name != "model"}
    return {key: str(value) if isinstance(value, Path) else value for key, value in values.items()}


def refine_settings(args: argparse.Namespace) -> Any:
    """The ``RefineSettings`` that the flags stand for."""
    from ptycho_torch.recon.refine import RefineSettings

    chosen = {
        new: getattr(args, old) for old, new in REFINEMENT.items() if getattr(args, old) is not None
    }
    settings = RefineSettings(**{"epochs": 0, "seed": args.seed or 0, **chosen})
    settings.validate()
    modes = args.probe_modes
    require(modes is None or modes >= 1, "--probe-modes", modes, "give 1 or more")
    return settings


def set_log_level(quiet: bool, debug: bool = False) -> None:
    """Say on standard error what is worth saying; of other packages' lines, warnings alone."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    own = logging.WARNING if quiet else logging.INFO
    logging.getLogger("trainrig").setLevel(own)
    logging.getLogger("ptycho_torch").setLevel(logging.DEBUG if debug else own)


def training_scan(
    path: str | Path, *, mapped: bool, assume: Sequence[str] | None = None
) -> RawDataTorch:
    """The scan in a file; ``mapped`` leaves its frames on disk."""
    from ptycho_torch.data.staging import open_mapped
    from ptycho_torch.raw_data import RawDataTorch
    from ptycho_torch.recon.trials import with_start_probe
    from ptycho_torch.scan.rules import Assumptions
    from trainrig.files import cache_dir

    chosen = Assumptions.parse(assume)
    if mapped:
        return open_mapped(path, cache_dir() / "ptycho", chosen)
    return with_start_probe(RawDataTorch.from_file(path, assume=chosen))


def training_from_args(args: argparse.Namespace) -> tuple[Any, TrainingConfig, ExecutionConfig]:
    """The scan that the flags name, and the configuration that they stand for on it.

    Raises:
        ValueError: no scan, or a value out of range.
    """
    training_file = args.train_data_file or _yaml(args.config).get("train_data_file")
    if training_file is None:
        raise ValueError("--train_data_file: missing; give a canonical NPZ scan")
    scan = training_scan(training_file, mapped=args.mapped, assume=args.assume)
    config, execution = resolve_training(args, scan.N)
    if config.n_groups == 512 and args.n_groups is None and args.n_images is None:
        config.n_groups = _yaml(args.config).get("n_groups", len(scan))
    config.train_data_file = Path(training_file)
    return scan, config, execution


def train_from_args(args: argparse.Namespace, say: Callable[[str], None]) -> None:
    """Train, reconstruct, optionally refine; ``say`` receives lines to print.

    Raises:
        ValueError: as ``experiment.run``.
        DivergedError: a loss became infinite or NaN.
    """
    set_log_level(args.quiet)
    scan, config, execution = training_from_args(args)
    from ptycho_torch.recon.pipeline import Method
    from ptycho_torch.train.experiment import run
    from trainrig.device import set_threads

    if args.threads is not None:
        set_threads(args.threads)
    result = run(
        config,
        execution,
        scan=scan,
        refinement=Method(refine_settings(args), args.probe_modes or 1),
        stitch=args.do_stitching,
        overwrite=args.overwrite,
        init=InitConfig(
            **{key: given for key in ("run", "state") if (given := getattr(args, f"init.{key}"))}
        ),
        say=say,
    )
    if result.status == "diverged" and result.path is not None:  # the first process speaks
        raise DivergedError(f"{result.path}: diverged: {result.message}")
