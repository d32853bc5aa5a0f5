"""Process-wide settings of DeepOBS: getters and setters, each with an environment variable.

A value set from code wins over the environment, which wins over the default.

| setting | environment | default |
|---|---|---|
| data_dir | DEEPOBS_DATA_DIR | data_deepobs, then TRAINRIG_DATA_DIR or data |
| baseline_dir | DEEPOBS_BASELINE_DIR | baselines_deepobs |
| dtype | DEEPOBS_DTYPE | float32 |
| default_device | DEEPOBS_DEVICE | auto: cuda if there is one, else cpu |
| num_workers | DEEPOBS_NUM_WORKERS | 0 |
| is_deterministic | DEEPOBS_DETERMINISTIC | true |
| compat | DEEPOBS_COMPAT | reference |
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch

from trainrig.data.locations import data_root
from trainrig.device import choose_device
from trainrig.errors import nearest

COMPAT_MODES = ("reference", "fixed")
_DTYPES = {"float32": torch.float32, "float64": torch.float64}
_BOOLS = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
_settings: dict[str, Any] = {}


def _get(name: str, default: Any) -> Any:
    if name in _settings:
        return _settings[name]
    return os.environ.get(f"DEEPOBS_{name.upper()}", default)


def reset() -> None:
    """Forget everything that was set from code."""
    _settings.clear()


def snapshot() -> dict[str, Any]:
    """Return what was set from code, for ``restore`` in another process."""
    return dict(_settings)


def restore(settings: Mapping[str, Any]) -> None:
    """Set what ``snapshot`` returned, and forget the rest."""
    reset()
    _settings.update(settings)


def get_data_dir() -> str:
    """Return the folder that holds the data sets."""
    return str(_get("data_dir", "data_deepobs"))


def get_data_dirs() -> list[Path]:
    """Return the folders to look for data sets in: the one set, else the project's as well."""
    chosen = Path(get_data_dir())
    named = "data_dir" in _settings or "DEEPOBS_DATA_DIR" in os.environ
    return [chosen] if named else [chosen, data_root()]


def set_data_dir(data_dir: str | Path) -> None:
    """Set the folder that holds the data sets."""
    _settings["data_dir"] = str(data_dir)


def get_baseline_dir() -> str:
    """Return the folder of baseline results beside those inside the package."""
    return str(_get("baseline_dir", "baselines_deepobs"))


def set_baseline_dir(baseline_dir: str | Path) -> None:
    """Set the folder of baseline results beside those inside the package."""
    _settings["baseline_dir"] = str(baseline_dir)


def get_dtype() -> torch.dtype:
    """Return the floating-point type of networks and data."""
    value = _get("dtype", "float32")
    return value if isinstance(value, torch.dtype) else _dtype(str(value), "DEEPOBS_DTYPE")


def set_dtype(dtype: torch.dtype | str) -> None:
    """Set the floating-point type: float32 or float64, as a torch type or by name.

    Raises:
        ValueError: another type.
    """
    _settings["dtype"] = _dtype(str(dtype).removeprefix("torch."), "set_dtype")


def _dtype(name: str, where: str) -> torch.dtype:
    if name not in _DTYPES:
        raise ValueError(f"{where}: {name!r} is not supported; accepted: float32, float64")
    return _DTYPES[name]


def get_default_device() -> str:
    """Return the device that networks and data live on, e.g. ``"cpu"`` or ``"cuda:0"``."""
    return str(choose_device(str(_get("device", "auto"))))


def set_default_device(device: str | torch.device) -> None:
    """Set the device; ``"auto"`` chooses.

    Raises:
        ValueError: unknown or absent device.
    """
    choose_device(str(device))
    _settings["device"] = str(device)


def get_num_workers() -> int:
    """Return the number of worker processes that decode image files (ImageNet only)."""
    return _count(_get("num_workers", 0), "DEEPOBS_NUM_WORKERS")


def set_num_workers(num_workers: int) -> None:
    """Set the number of worker processes, at least 0."""
    _settings["num_workers"] = _count(num_workers, "set_num_workers")


def _count(value: Any, where: str) -> int:
    try:
        number = int(value)
    except (TypeError, ValueError):
        number = -1
    if number < 0 or isinstance(value, bool):
        raise ValueError(f"{where}: {value!r} is no count; give an integer of at least 0")
    return number


def get_is_deterministic() -> bool:
    """Say whether deterministic kernels are asked for."""
    value = _get("deterministic", True)
    if isinstance(value, str):
        if value.lower() not in _BOOLS:
            raise ValueError(f"DEEPOBS_DETERMINISTIC: {value!r}; accepted: true, false")
        return _BOOLS[value.lower()]
    return bool(value)


def set_is_deterministic(is_deterministic: bool) -> None:
    """Ask for deterministic kernels, or allow faster ones."""
    _settings["deterministic"] = bool(is_deterministic)


def get_compat() -> str:
    """Return ``"reference"`` (the defects behind the published baselines) or ``"fixed"``."""
    return _compat(str(_get("compat", "reference")), "DEEPOBS_COMPAT")


def set_compat(mode: str) -> None:
    """Reproduce the published line with its data defects, or repair them.

    Args:
        mode: ``"reference"`` or ``"fixed"``; read when a data set or test problem is made.

    Raises:
        ValueError: another mode.
    """
    _settings["compat"] = _compat(mode, "set_compat")


def _compat(mode: str, where: str) -> str:
    if mode not in COMPAT_MODES:
        raise ValueError(
            f"{where}: unknown mode {mode!r}{nearest(mode, COMPAT_MODES)}; "
            f"accepted: {', '.join(COMPAT_MODES)}"
        )
    return mode


SMALL_TEST_SET = ("quadratic_deep", "mnist_vae", "fmnist_2c2d", "cifar10_3c3d")
LARGE_TEST_SET = ("fmnist_vae", "cifar100_allcnnc", "svhn_wrn164", "tolstoi_char_rnn")


def get_small_test_set() -> list[str]:
    """Return the names of the small benchmark set, P1 to P4."""
    return list(SMALL_TEST_SET)


def get_large_test_set() -> list[str]:
    """Return the names of the large benchmark set, P5 to P8."""
    return list(LARGE_TEST_SET)


@cache
def get_testproblem_default_settings() -> dict[str, dict[str, Any]]:
    """Return ``{problem: {"batch_size", "num_epochs"}}``; null where there is no default."""
    path = Path(__file__).parent / "testproblem_defaults.json"
    return json.loads(path.read_text(encoding="utf-8"))
