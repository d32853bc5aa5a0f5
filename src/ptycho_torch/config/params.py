"""The flat legacy dictionary, kept only for programs that still read it.

New code passes dataclasses. This dictionary is this package's own; when the TensorFlow package
``ptycho`` is installed its dictionary is updated with the same values, so that either backend
sees one configuration. The package is imported only if it is there already.
"""

from __future__ import annotations

import importlib.util
from collections.abc import MutableMapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ptycho_torch.config.canonical import InferenceConfig, TrainingConfig

KEY_MAPPINGS = {
    "object_big": "object.big",
    "probe_big": "probe.big",
    "probe_mask": "probe.mask",
    "probe_trainable": "probe.trainable",
    "intensity_scale_trainable": "intensity_scale.trainable",
    "positions_provided": "positions.provided",
    "output_dir": "output_prefix",
    "train_data_file": "train_data_file_path",
    "test_data_file": "test_data_file_path",
}

LEGACY_DEFAULTS: dict[str, Any] = {
    "N": 128,
    "offset": 4,
    "gridsize": 2,
    "outer_offset_train": None,
    "outer_offset_test": None,
    "batch_size": 16,
    "nepochs": 60,
    "n_filters_scale": 2,
    "output_prefix": "outputs",
    "big_gridsize": 10,
    "max_position_jitter": 10,
    "sim_jitter_scale": 0.0,
    "default_probe_scale": 0.7,
    "mae_weight": 0.0,
    "nll_weight": 1.0,
    "tv_weight": 0.0,
    "realspace_mae_weight": 0.0,
    "realspace_weight": 0.0,
    "nphotons": 1e9,
    "nimgs_train": 9,
    "nimgs_test": 3,
    "data_source": "generic",
    "probe.trainable": False,
    "intensity_scale.trainable": False,
    "positions.provided": False,
    "object.big": True,
    "probe.big": False,
    "probe_scale": 10.0,
    "set_phi": False,
    "probe.mask": True,
    "pad_object": True,
    "model_type": "pinn",
    "label": "",
    "size": 392,
    "amp_activation": "sigmoid",
    "h5_path": "wts.h5",
    "npseed": 42,
    "debug": True,
    "gaussian_smoothing_sigma": 0.0,
    "use_xla_translate": True,
}

cfg: dict[str, Any] = dict(LEGACY_DEFAULTS)


def update_legacy_dict(
    target: MutableMapping[str, Any], config: TrainingConfig | InferenceConfig
) -> None:
    """Write a configuration into the flat dictionary, in place.

    Model fields win over outer fields of the same name; ``None`` never erases an older value;
    paths become strings; keys are only added. Nothing is validated.
    """
    fields = asdict(config)
    fields.update(fields.pop("model", {}))
    for name, value in fields.items():
        if value is not None:
            key = KEY_MAPPINGS.get(name, name)
            target[key] = str(value) if isinstance(value, Path) else value
    if target is cfg:
        _mirror()


def get(key: str, default: Any = ...) -> Any:
    """Read one value; ``bigN`` is N + (gridsize - 1)·offset.

    Raises:
        KeyError: the key is unknown and no default was given.
    """
    if key == "bigN":
        return cfg["N"] + (cfg["gridsize"] - 1) * cfg["offset"]
    if default is ...:
        if key not in cfg:
            raise KeyError(f"params: unknown key {key!r}; known: {', '.join(sorted(cfg))}")
        return cfg[key]
    return cfg.get(key, default)


def reset() -> None:
    """Put the dictionary back to its defaults (tests and fresh runs)."""
    cfg.clear()
    cfg.update(LEGACY_DEFAULTS)


def _mirror() -> None:
    """Copy into the TensorFlow package's dictionary where that package is installed."""
    if importlib.util.find_spec("ptycho") is None:
        return
    import importlib as _importlib

    try:
        other = _importlib.import_module("ptycho.params")
    except ImportError:
        return
    other.cfg.update(cfg)
