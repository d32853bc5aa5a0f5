"""Configuration of one run: the specification's keys, checked before anything is read."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from optimizer_quality.models import MODELS
from trainrig.config import (
    InitConfig,
    Traced,
    apply_overrides,
    flatten,
    from_dict,
    parse_assignments,
    read_yaml,
    to_dict,
)
from trainrig.data.image_sets import SIZE_PX, small_sets
from trainrig.errors import nearest
from trainrig.optim import accepts, check_arguments, resolve_optimizer
from trainrig.summaries import exact

BETAS_FOR = ("adam", "adamw", "nadam", "radam")
MOMENTUM_FOR = ("sgd",)
MIN_CROP_PX = 8
#: Keys that do not change a run's numbers, so that a resumed run may have other values.
NOT_IDENTITY = (
    "experiment_name",
    "device",
    "data_dir",
    "download",
    "num_workers",
    "log_dir",
    "results_dir",
    "init",  # a path; what it led to is in the identity's ``branch``
)
#: Keys that a run's folder name does not hold where they differ from the base configuration; type
#: and seed have places of their own.
NOT_IN_NAME = ("engine", "seed", "optimizer.type")
LONGEST_NAME = 120


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimizerConfig:
    """One optimizer and its settings.

    Attributes:
        type: registered name (``sgd``, ``adamw``, ``muon`` ...) or ``package.module.Class``.
        lr: learning rate; None takes the default of the optimizer's constructor.
        momentum: given to ``sgd``; other optimizers keep their own default.
        betas: given to the Adam family.
        weight_decay: given to every optimizer whose constructor takes it.
        arguments: further keyword arguments; they win over the keys above.
    """

    type: str = "sgd"
    lr: float | None = 0.1
    momentum: float = 0.9
    betas: tuple[float, ...] = (0.9, 0.999)
    weight_decay: float = 1e-4
    arguments: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the name, the keywords and the ranges."""
        if "." not in self.type:
            object.__setattr__(self, "type", self.type.lower())  # one name in files and folders
        try:
            check_arguments(self.type, self.keywords())
        except KeyError as error:
            raise ValueError(error.args[0]) from None
        for name in ("lr", "weight_decay", "momentum"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise ValueError(f"optimizer.{name} is {value}; a finite number >= 0 is expected")

    def keywords(self) -> dict[str, Any]:
        """Return the constructor's keyword arguments that this configuration stands for."""
        taken = inspect.signature(resolve_optimizer(self.type)).parameters
        values: dict[str, Any] = {}
        own = type(self).__dataclass_fields__["lr"].default
        if self.lr is not None and (self.lr != own or accepts(self.type, "lr")):
            values["lr"] = self.lr
        if "weight_decay" in taken:
            values["weight_decay"] = self.weight_decay
        if self.type in MOMENTUM_FOR:
            values["momentum"] = self.momentum
        if self.type in BETAS_FOR:
            values["betas"] = tuple(self.betas)
        return values | {key: _literal(value) for key, value in self.arguments.items()}


@dataclass(frozen=True, kw_only=True, slots=True)
class CifarConfig:
    """One run; see ``configs/optimizer_quality/base_config.yaml``.

    Attributes:
        experiment_name: the tracker's project.
        seed: of the split, the initial weights and the order of the images.
        device: ``cuda`` falls back to the CPU with a message; ``cuda:N`` does not.
        dataset: a set of labelled images, see ``trainrig data list``.
        data_dir: folder of data sets.
        download: fetch an absent set.
        check_files: compare files with published sizes and digests.
        pipeline: ``resident`` keeps the set on the device; ``torchvision`` is the slow oracle.
        num_workers: loader processes of the ``torchvision`` pipeline.
        train_val_split: share of the training part, inside (0, 1).
        crop_px: side of the training windows; validation and test images stay whole. Below the
            image's 32 a step is cheaper, and learns from parts.
        crop_epochs: so many first epochs have windows of ``crop_px``, the others whole ones; None:
            all have.
        train_items: use only the first so many images of the training part; None uses all.
        model: a name in ``MODELS``.
        num_classes: must be the set's.
        channels_last: memory format of images and kernels.
        precision: ``bf16`` runs the forward pass in bfloat16 autocast.
        engine: ``compile`` fuses the training steps of full batches with ``torch.compile``;
            ``packed`` marks a run that a sweep trains together with others (``--pack``).
        batch_size: images per step.
        num_epochs: passes over the training part.
        eval_every: epochs between rows of per-layer weight norms and console lines.
        optimizer: see ``OptimizerConfig``.
        log_dir: folder of ``{run_name}/trackio_logs.json``.
        results_dir: folder of the run directories, see ``run_name``.
        init: what the run begins from, where that is another run.
    """

    experiment_name: str = "resnet8_cifar10_baseline"
    seed: int = 42
    device: str = "cuda"
    dataset: str = "cifar10"
    data_dir: str = "./data"
    download: bool = False
    check_files: bool = True
    pipeline: Literal["resident", "torchvision"] = "resident"
    num_workers: int = 4
    train_val_split: float = 0.9
    crop_px: int = SIZE_PX
    crop_epochs: int | None = None
    train_items: int | None = None
    model: str = "resnet8"
    num_classes: int = 10
    channels_last: bool = True
    precision: Literal["fp32", "bf16"] = "fp32"
    engine: Literal["eager", "compile", "packed"] = "eager"
    batch_size: int = 128
    num_epochs: int = 200
    eval_every: int = 10
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    log_dir: str = "runs/optimizer_quality/logs"
    results_dir: str = "runs/optimizer_quality/results"
    init: InitConfig = field(default_factory=InitConfig)

    def __post_init__(self) -> None:
        """Check ranges and names."""
        for key, table in (("dataset", small_sets()), ("model", MODELS)):
            value = getattr(self, key)
            if value not in table:
                known = ", ".join(table)
                raise ValueError(f"{key} is {value!r}{nearest(value, table)} (accepted: {known})")
        for key, low in (("num_classes", 2), ("batch_size", 1), ("num_epochs", 1), ("seed", 0)):
            if getattr(self, key) < low:
                raise ValueError(f"{key} is {getattr(self, key)}; at least {low} is expected")
        if not MIN_CROP_PX <= self.crop_px <= SIZE_PX:
            raise ValueError(f"crop_px is {self.crop_px}; {MIN_CROP_PX} to {SIZE_PX} is accepted")
        if self.train_items is not None and self.train_items < 1:
            raise ValueError(f"train_items is {self.train_items}; at least 1 is expected")
        for key in ("num_workers", "eval_every", "crop_epochs"):
            if (getattr(self, key) or 0) < 0:
                raise ValueError(f"{key} is {getattr(self, key)}; at least 0 is expected")
        if not 0.0 < self.train_val_split < 1.0:
            raise ValueError(
                f"train_val_split is {self.train_val_split}; a number inside (0, 1) is expected"
            )

    def run_name(self, base: CifarConfig | None = None, *, always: Sequence[str] = ()) -> str:
        """Return the run's folder name: its optimizer, what differs from ``base``, its seed.

        A long name keeps its beginning and ends in a digest. The engine is no part of it: a run
        that was begun with one is refused with another.

        Args:
            base: the base configuration; default the values above. Where its optimizer is another
                one, the run's own default learning rate stands for its rate.
            always: dotted keys that are named although they do not differ.

        >>> CifarConfig().run_name(), CifarConfig(num_epochs=5).run_name()
        ('sgd_seed42', 'sgd_num_epochs5_seed42')
        >>> with_optimizer(CifarConfig(seed=0), "adamw", 1e-3).run_name()
        'adamw_lr0.001_seed0'
        """
        base = base or CifarConfig()
        if base.optimizer.type != self.optimizer.type:
            base = with_optimizer(base, self.optimizer.type, None)
        own, before = (
            {key: value for key, value in flatten(config.identity()).items() if value != {}}
            for config in (self, base)
        )
        if self.init.run is not None:
            own["init"] = f"{self.init.run} {'state' if self.init.state else 'weights'}"
        parts, exactly = [], True
        keys = dict.fromkeys((*own, *before))
        for key in sorted(keys, key=lambda key: not key.startswith("optimizer.")):
            if key in NOT_IN_NAME or (own.get(key) == before.get(key) and key not in always):
                continue
            text, plain = _name_part(own.get(key))
            parts.append(key.removeprefix("optimizer.") + text)
            exactly = exactly and plain
        name = "_".join([self.optimizer.type, *parts])
        if not exactly or len(name) > LONGEST_NAME:
            digest = hashlib.sha256(json.dumps(own, sort_keys=True, default=str).encode())
            name = f"{name[:LONGEST_NAME]}_{digest.hexdigest()[:10]}"
        return f"{name.replace('/', '-')}_seed{self.seed}"

    def identity(self) -> dict[str, Any]:
        """Return the keys that decide a run's numbers."""
        return {key: value for key, value in to_dict(self).items() if key not in NOT_IDENTITY}


def with_optimizer(config: CifarConfig, name: str, lr: float | None) -> CifarConfig:
    """Return ``config`` with another optimizer at ``lr`` (None: its own default)."""
    optimizer = dataclasses.replace(config.optimizer, type=name, lr=lr)
    return dataclasses.replace(config, optimizer=optimizer)


def resolve(
    path: Path, flags: Mapping[str, Any], names: Mapping[str, str], assignments: list[str] | None
) -> Traced[CifarConfig]:
    """Return file, flags and ``--set`` as one configuration, and where each value came from.

    Args:
        path: YAML file.
        flags: dotted key → value; None keeps the file's.
        names: dotted key → the flag's name, for those given.
        assignments: texts ``key=value``.

    Raises:
        FileNotFoundError, ValueError: no such file, an unknown key or a bad value.
    """
    values = read_yaml(path)
    named = dict.fromkeys(flatten(values), str(path))
    traced = Traced(CifarConfig()).then(from_dict(CifarConfig, values, str(path)), named)
    traced = dataclasses.replace(traced, base=traced.config)
    chosen = parse_assignments(assignments)
    overrides = switch_overrides(traced.config, {**flags, **chosen})
    config = apply_overrides(traced.config, overrides)
    named = {**names, **dict.fromkeys(chosen, "--set")}
    return traced.then(config, named, "follows from the optimizer")


def switch_overrides(config: CifarConfig, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Complete command-line overrides: another optimizer without ``lr`` uses its own default.

    The file's learning rate belongs to the file's optimizer; 0.1 is no rate for AdamW.
    """
    completed = dict(overrides)
    name = completed.get("optimizer.type")
    switched = name is not None and name.lower() != config.optimizer.type.lower()
    if switched and completed.get("optimizer.lr") is None:
        completed["optimizer.lr"] = "none"
    return completed


def _name_part(value: Any) -> tuple[str, bool]:
    """Return a value as a part of a folder's name, and whether no other value has this part."""
    if isinstance(value, bool) or value is None:
        return f"-{str(value).lower()}", True
    if isinstance(value, int):
        return str(value), True
    if isinstance(value, float):
        return exact(value), True
    if isinstance(value, list | tuple):
        parts = [_name_part(item) for item in value]
        return "-".join(text for text, _ in parts), all(
            isinstance(item, int | float) and item >= 0 for item in value
        )
    plain = re.fullmatch(r"[A-Za-z0-9_]+", str(value)) is not None
    return "-" + re.sub(r"[^A-Za-z0-9_.]+", "-", str(value)), plain


def _literal(value: Any) -> Any:
    """Return a text from the command line as the number, flag or list that it spells."""
    if not isinstance(value, str):
        return tuple(value) if isinstance(value, list) else value
    import yaml

    try:
        return float(value) if "e" in value.lower() else yaml.safe_load(value)
    except (ValueError, yaml.YAMLError):
        try:
            return yaml.safe_load(value)
        except yaml.YAMLError:
            return value
