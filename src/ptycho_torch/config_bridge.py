"""Torch-side configuration to canonical configuration: pure functions, inputs untouched.

Every ``to_*`` accepts ``overrides``, a dict of canonical field names that wins last. Values that
the two sides spell differently are translated here and nowhere else.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from ptycho_torch import config_params as torch_side
from ptycho_torch.config.canonical import InferenceConfig, ModelConfig, TrainingConfig
from ptycho_torch.config.params import KEY_MAPPINGS, LEGACY_DEFAULTS, cfg, update_legacy_dict
from trainrig.errors import nearest

__all__ = [
    "KEY_MAPPINGS",
    "LEGACY_DEFAULTS",
    "cfg",
    "to_inference_config",
    "to_model_config",
    "to_training_config",
    "update_legacy_dict",
]

logger = logging.getLogger(__name__)

_MODES = {"Unsupervised": "pinn", "Supervised": "supervised"}
_PATHS = ("train_data_file", "test_data_file", "model_path", "output_dir")
_SCHEDULERS = {"Cosine": "WarmupCosine"}
_LOSSES = {"poisson": "Poisson", "mae": "MAE", "mse": "MSE"}


def activation_name(name: str) -> str:
    """``silu`` and ``SiLU`` are ``swish``; the four canonical names pass.

    Raises:
        ValueError: any other name.
    """
    canonical = "swish" if name in ("silu", "SiLU") else name
    if canonical not in ("sigmoid", "swish", "softplus", "relu"):
        raise ValueError(
            f"amp_activation: {name!r} is unknown; use silu, SiLU, swish, sigmoid, softplus or relu"
        )
    return canonical


def _apply(
    cls: type, values: dict[str, Any], overrides: Mapping[str, Any] | None
) -> dict[str, Any]:
    names = {item.name for item in fields(cls)} - {"model"}
    for key, value in (overrides or {}).items():
        if key in names:
            values[key] = value
        elif key not in {item.name for item in fields(ModelConfig)}:
            raise ValueError(
                f"overrides: unknown field {key!r} of {cls.__name__}{nearest(key, names)}"
            )
    for key in _PATHS:
        if isinstance(values.get(key), str):
            values[key] = Path(values[key])
    return values


def to_model_config(
    data: torch_side.DataConfig,
    model: torch_side.ModelConfig,
    overrides: Mapping[str, Any] | None = None,
) -> ModelConfig:
    """Translate the data and model parts.

    Raises:
        ValueError: ``grid_size`` is not square, or a mode or activation is unknown.
    """
    rows, columns = data.grid_size
    if rows != columns:
        raise ValueError(f"DataConfig.grid_size: {data.grid_size} is not square; use (g, g)")
    if model.mode not in _MODES:
        raise ValueError(f"ModelConfig.mode: {model.mode!r}; use Unsupervised or Supervised")
    if data.probe_scale != 4.0:
        logger.warning(
            "DataConfig.probe_scale is %s; the canonical default is 4.0", data.probe_scale
        )
    mask = model.probe_mask
    values: dict[str, Any] = {
        "N": data.N,
        "gridsize": rows,
        "n_filters_scale": model.n_filters_scale,
        "model_type": _MODES[model.mode],
        "amp_activation": activation_name(model.amp_activation),
        "object_big": model.object_big,
        "probe_big": model.probe_big,
        "probe_mask": mask if isinstance(mask, bool) else mask is not None,
        "probe_mask_sigma": model.probe_mask_sigma,
        "probe_mask_diameter": model.probe_mask_diameter,
        "pad_object": model.pad_object,
        "probe_scale": data.probe_scale,
        "gaussian_smoothing_sigma": model.gaussian_smoothing_sigma,
    }
    names = {item.name for item in fields(ModelConfig)}
    values.update({k: v for k, v in (overrides or {}).items() if k in names})
    values["amp_activation"] = activation_name(values["amp_activation"])
    return ModelConfig(**values)


def to_training_config(
    model: ModelConfig,
    data: torch_side.DataConfig,
    pt_model: torch_side.ModelConfig,
    training: torch_side.TrainingConfig,
    overrides: Mapping[str, Any] | None = None,
) -> TrainingConfig:
    """Translate the training part.

    Raises:
        ValueError: ``train_data_file`` or ``n_groups`` is missing, or ``nphotons`` was left at the
            torch-side default, which differs from the canonical one by 10⁴.
    """
    overrides = dict(overrides or {})
    if data.nphotons == torch_side.TORCH_NPHOTONS and "nphotons" not in overrides:
        raise ValueError(
            f"DataConfig.nphotons: left at the torch default {torch_side.TORCH_NPHOTONS:g}, the "
            f"canonical default is 1e+09; pass overrides={{'nphotons': ...}} to decide"
        )
    values: dict[str, Any] = {
        "train_data_file": training.train_data_file,
        "test_data_file": training.test_data_file,
        "batch_size": training.batch_size,
        "nepochs": training.epochs,
        "nll_weight": 1.0 if training.nll else 0.0,
        "nphotons": data.nphotons,
        "n_groups": training.n_groups,
        "subsample_seed": data.subsample_seed,
        "neighbor_count": data.K,
        "intensity_scale_trainable": pt_model.intensity_scale_trainable,
        "output_dir": training.output_dir,
        "backend": "pytorch",
        "torch_loss_mode": pt_model.loss_function.casefold(),
        "gradient_clip_val": training.gradient_clip_val,
        "scheduler": _SCHEDULERS.get(training.scheduler, training.scheduler),
        "lr_warmup_epochs": training.warmup_epochs,
        "lr_min_ratio": training.min_lr_ratio,
    }
    values = _apply(TrainingConfig, values, overrides)
    for name in ("train_data_file", "n_groups"):
        if values.get(name) is None and values.get("n_images") is None:
            raise ValueError(
                f"to_training_config: {name} is missing; pass overrides={{'{name}': ...}}"
            )
    if values.get("test_data_file") is None:
        logger.warning("to_training_config: no test_data_file; validation uses the training scan")
    return TrainingConfig(model=replace(model), **values)


def to_inference_config(
    model: ModelConfig,
    data: torch_side.DataConfig,
    inference: torch_side.InferenceConfig,
    overrides: Mapping[str, Any] | None = None,
) -> InferenceConfig:
    """Translate the inference part.

    Raises:
        ValueError: ``model_path`` or ``test_data_file`` is missing.
    """
    values: dict[str, Any] = {
        "model_path": inference.model_path,
        "test_data_file": inference.test_data_file,
        "n_groups": inference.n_groups,
        "subsample_seed": data.subsample_seed,
        "neighbor_count": data.K,
        "backend": "pytorch",
    }
    values = _apply(InferenceConfig, values, overrides)
    for name in ("model_path", "test_data_file"):
        if values.get(name) is None:
            raise ValueError(
                f"to_inference_config: {name} is missing; pass overrides={{'{name}': ...}}"
            )
    return InferenceConfig(model=replace(model), **values)


def _shared_values(config: TrainingConfig) -> dict[str, Any]:
    """The settings of a training that both sides call by one name."""
    shared = {item.name for item in fields(torch_side.TrainingConfig)}
    values = {
        item.name: getattr(config, item.name)
        for item in fields(TrainingConfig)
        if item.name in shared
    }
    values.pop("output_dir", None)  # where a run lies is no part of what it is
    for name in _PATHS:
        if isinstance(values.get(name), Path):
            values[name] = str(values[name])
    return values


def to_torch_side(
    config: TrainingConfig, *, learning_rate: float = 1e-3, seed: int = 42, overlap_frames: int = 0
) -> tuple[
    torch_side.DataConfig,
    torch_side.ModelConfig,
    torch_side.TrainingConfig,
    torch_side.InferenceConfig,
]:
    """The four torch-side configurations that describe the same training."""
    m = config.model
    frames = m.gridsize**2
    data = torch_side.DataConfig(
        nphotons=config.nphotons,
        N=m.N,
        C=frames,
        K=config.neighbor_count,
        grid_size=(m.gridsize, m.gridsize),
        probe_scale=m.probe_scale,
        subsample_seed=config.subsample_seed,
    )
    model = torch_side.ModelConfig(
        mode="Unsupervised" if m.model_type == "pinn" else "Supervised",
        C_model=frames,
        C_forward=frames,
        loss_function=_LOSSES[config.torch_loss_mode],
        intensity_scale_trainable=config.intensity_scale_trainable,
        probe_trainable=config.probe_trainable,
        **{
            name: getattr(m, name)
            for name in (
                "n_filters_scale",
                "amp_activation",
                "object_big",
                "probe_big",
                "pad_object",
                "probe_mask",
                "probe_mask_sigma",
                "probe_mask_diameter",
                "gaussian_smoothing_sigma",
            )
        },
    )
    training = torch_side.TrainingConfig(
        epochs=config.nepochs,
        nll=config.nll_weight > 0,
        warmup_epochs=config.lr_warmup_epochs,
        min_lr_ratio=config.lr_min_ratio,
        learning_rate=learning_rate,
        seed=seed,
        overlap_frames=overlap_frames,
        num_workers=0,
        device="cpu",
        **_shared_values(config),
    )
    return data, model, training, torch_side.InferenceConfig()
