"""Flags that the ICL scripts share, each tied by its ``dest`` to its place in the configuration.

Nothing here imports torch, so that ``--help`` is instant. A flag left out keeps the file's value.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_port.config.schema import GeneratorConfig, IclConfig
from trainrig.cli import (
    add_force_engine_flag,
    add_init_flags,
    add_print_config_flag,
    given_flags,
)
from trainrig.config import (
    Traced,
    apply_overrides,
    flatten,
    from_dict,
    parse_assignments,
    to_dict,
)
from trainrig.tracking.tracker import add_tracker_flags

#: flag (or several names of it), dotted key, type, help
_MODEL_AND_DATA = (
    ("--n-rare", "data.generator_config.n_rare_classes", int, "rare classes (1603)"),
    ("--n-common", "data.generator_config.n_common_classes", int, "common classes (10)"),
    ("--n-holdout", "data.generator_config.n_holdout_classes", int, "holdout classes (10)"),
    (
        "--symbolic-dataset-size",
        "data.symbolic_config.dataset_size",
        int,
        "symbols; at least rare + common + holdout, which is the default",
    ),
    ("--seq-len", "data.seq_config.seq_len", int, "items per sequence, query included (9)"),
    ("--image-channels", "preproc.image_channels", int, "repeat the grey channel (1)"),
    ("--num-layers", "transformer.num_layers", int, "transformer layers (12)"),
    ("--num-heads", "transformer.num_heads", int, "attention heads (8)"),
)
_TRAINING = (
    ("--optimizer", "optimizer.name", str, "alias such as adam, adamw, or a dotted class (adam)"),
    ("--weight-decay", "optimizer.weight_decay", float, "λ (0); what it does: --l2-mode"),
    ("--learning-rate --lr", "optimizer.max_lr", float, "peak learning rate (3e-4)"),
    ("--batch-size", "training.batch_size", int, "sequences per batch (32)"),
    ("--accumulate", "training.accumulate", int, "batches per optimizer step (1)"),
    ("--max-steps --steps", "training_steps", int, "optimizer steps (500000)"),
    ("--log-interval", "training.log_interval", int, "steps between training rows (100)"),
    ("--save-interval", "training.save_interval", int, "steps between checkpoints (1000)"),
    ("--keep-last", "training.keep_last", int, "checkpoints kept, the newest (2)"),
    ("--eval-interval", "training.eval_interval", int, "steps between evaluations (1000)"),
    ("--eval-batches", "evaluation.batches", int, "batches per evaluation and regime (64)"),
    ("--eval-batch-size", "evaluation.batch_size", int, "sequences per evaluation batch (32)"),
    ("--seed", "seed", int, "of initial weights and sequences (42)"),
)
#: What an ICL sweep does without ``--pack``.
PACK_DEFAULT = "CPU: 1, K are one program; CUDA: auto, each as if alone"
SYMBOLIC_NOTE = (
    "omniglot or symbolic; symbols have no within-class variation, so in-weights accuracy is 1.0 "
    "at once and in-context accuracy stays at chance"
)


def add_run_flags(parser: argparse.ArgumentParser) -> None:
    """Add everything that describes one run."""
    group = parser.add_argument_group("data and model (configuration's defaults in brackets)")
    group.add_argument(
        "--example-type",
        dest="data.example_type",
        choices=("omniglot", "symbolic"),
        help=SYMBOLIC_NOTE,
    )
    group.add_argument(
        "--example-encoding",
        dest="embedding.example_encoding",
        choices=("resnet", "conv", "linear", "embedding"),
        help="image encoder (resnet); symbols use embedding",
    )
    _add(group, _MODEL_AND_DATA)
    add_data_flags(parser)
    group = parser.add_argument_group("training (configuration's defaults in brackets)")
    group.add_argument(
        "--l2-mode",
        dest="optimizer.l2_mode",
        choices=("decoupled", "sum_squares", "sum_norms"),
        help="λ as decoupled decay, or λ·Σ‖W‖² or λ·Σ‖W‖ added to the loss (decoupled)",
    )
    group.add_argument(
        "--precision",
        dest="training.precision",
        choices=("fp32", "tf32", "bf16"),
        help="arithmetic of forward and backward pass (fp32)",
    )
    add_engine_flags(group)
    _add(group, _TRAINING)
    add_init_flags(parser)


def add_engine_flags(group: Any) -> None:
    """Add how the steps are carried out."""
    group.add_argument(
        "--engine",
        dest="training.engine",
        choices=("auto", "eager", "compile", "graph"),
        help="how a step runs: compiled, or as one CUDA graph (auto: eager on a CPU, graph on "
        "CUDA where it reproduces the eager steps)",
    )


def add_data_flags(parser: argparse.ArgumentParser) -> None:
    """Add where images come from and how sequences are drawn."""
    group = parser.add_argument_group("data source")
    group.add_argument(
        "--source",
        dest="data.source",
        help="omniglot: our reader (default); auto: glyphs where Omniglot is not found; "
        "synthetic: procedural glyphs; torchvision, tfds: Omniglot through these libraries; or "
        "any registered image source",
    )
    group.add_argument(
        "--sampler",
        dest="data.sampler",
        choices=("vectorized", "device", "exact"),
        help="device: draw where the model is, not on the CPU; exact: the reference's generator, "
        "slow (vectorized)",
    )
    group.add_argument(
        "--downsample",
        dest="preproc.downsample",
        action=argparse.BooleanOptionalAction,
        help="28-px images instead of 105 px",
    )
    group.add_argument(
        "--data-dir", help="folder of data sets (default: $TRAINRIG_DATA_DIR, else ./data)"
    )
    group.add_argument("--download", action="store_true", help="fetch Omniglot if it is absent")


def add_runtime_flags(parser: argparse.ArgumentParser) -> None:
    """Add what does not change the numbers."""
    group = parser.add_argument_group("runtime")
    group.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (auto)")
    group.add_argument("--threads", type=int, help="torch threads per run (1)")
    group.add_argument(
        "--num-workers", type=int, default=0, help="processes drawing for --sampler exact (0)"
    )
    add_tracker_flags(group)
    group.add_argument("--overwrite", action="store_true", help="discard an earlier run and start")
    text = "let runs begun in packs continue alone, or the reverse, with other rounding"
    add_force_engine_flag(group, text)
    group.add_argument(
        "--set",
        dest="assignments",
        action="append",
        metavar="KEY=VALUE",
        help="any configuration key, e.g. --set data.seq_config.p_bursty=1.0; may be repeated",
    )
    add_print_config_flag(group)


def resolve(
    parser: argparse.ArgumentParser,
    arguments: argparse.Namespace,
    config_path: Path,
    preset: Mapping[str, Any] | None = None,
) -> Traced[IclConfig]:
    """Return the configuration of a command line, and where each of its values came from.

    Args:
        parser: of ``arguments``.
        arguments: flags tied to the configuration by their ``dest``.
        config_path: file with ``get_config()``.
        preset: dotted keys that ``--preset`` sets over the file.

    Raises:
        FileNotFoundError, ValueError: no such file, an unknown key or a bad value.
    """
    traced = trace_file(config_path)
    if preset:
        named = dict.fromkeys(preset, f"--preset {arguments.preset}")
        traced = traced.then(apply_overrides(traced.config, preset), named)
    traced = dataclasses.replace(traced, base=traced.config)
    keys = dotted_keys(parser)
    named = {key: flag for key, flag in given_flags(parser, arguments).items() if key in keys}
    named |= dict.fromkeys(parse_assignments(arguments.assignments), "--set")
    config = configure(traced.config, arguments, keys)
    return traced.then(config, named, "follows from the flags")


def trace_file(path: Path) -> Traced[IclConfig]:
    """Return the configuration of a file with ``get_config()``, each of its values named by it."""
    from pytorch_port.config.files import read_icl_tree

    tree, file = read_icl_tree(path), str(path)
    named = dict.fromkeys(flatten(tree), file)
    return Traced(IclConfig()).then(from_dict(IclConfig, tree, file), named)


def configure(config: IclConfig, arguments: argparse.Namespace, keys: set[str]) -> IclConfig:
    """Apply the dotted flags among ``keys``, then ``--set``; flags win over files.

    ``--example-type symbolic`` alone also chooses the symbol embedding and, as does any flag for a
    number of classes, as many symbols as there are classes, since no other choice is valid.
    """
    flags: dict[str, Any] = {
        key: value for key, value in vars(arguments).items() if key in keys and value is not None
    }
    flags |= parse_assignments(getattr(arguments, "assignments", None))
    if flags.get("data.example_type") == "symbolic":
        flags.setdefault("embedding.example_encoding", "embedding")
    prefix = "data.generator_config."
    counts = {k.removeprefix(prefix): v for k, v in flags.items() if k.startswith(f"{prefix}n_")}
    example_type = flags.get("data.example_type", config.data.example_type)
    if example_type == "symbolic" and (counts or "data.example_type" in flags):
        present = to_dict(config.data.generator_config)
        partition = from_dict(GeneratorConfig, present | counts, "command line", prefix)
        flags.setdefault("data.symbolic_config.dataset_size", partition.n_classes)
    return apply_overrides(config, flags)


def dotted_keys(parser: argparse.ArgumentParser) -> set[str]:
    """Return the configuration keys that a parser's flags set."""
    return {action.dest for action in parser._actions if "." in action.dest} | {
        action.dest for action in parser._actions if action.dest in ("training_steps", "seed")
    }


def runtime_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the keyword arguments of ``runtime.Runtime`` that the flags give."""
    return {
        "device": arguments.device,
        "threads": arguments.threads,
        "data_dir": str(Path(arguments.data_dir)) if arguments.data_dir else None,
        "download": arguments.download,
        "num_workers": arguments.num_workers,
        "overwrite": arguments.overwrite,
        "force_engine_change": arguments.force_engine_change,
        "tracker": arguments.tracker,
    }


def _add(group: Any, flags: tuple[tuple[str, str, type, str], ...]) -> None:
    for flag, dest, kind, text in flags:
        metavar = kind.__name__.upper()
        group.add_argument(*flag.split(), dest=dest, type=kind, metavar=metavar, help=text)
