"""Configuration files of ICL runs: Python with a ``get_config()``, ours or the JAX original's.

``get_config()`` returns an ``ml_collections.ConfigDict`` or a plain dictionary; only this module
knows ``ml_collections``, and it works without it.
"""

from __future__ import annotations

import copy
import importlib.util
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_port.config.schema import IclConfig
from trainrig.config import from_dict

#: Keys of the original's tree that have no effect here: dead in the original, derived, or
#: belonging to its launcher. They are read past, so that an original file works as it is.
REFERENCE_ONLY = (
    "optimizer.clip_level",
    "training.learning_rate",
    "embedding.num_classes",
    "transformer.num_classes",
    "rnn.num_classes",
    "rnn.dropout_prob",
)


def load_icl_config(path: Path | str) -> IclConfig:
    """Run a configuration file's ``get_config()`` and build the dataclass tree from it.

    Raises:
        FileNotFoundError, ValueError: as ``read_icl_tree``; an unknown key or bad value.
    """
    return from_dict(IclConfig, read_icl_tree(path), str(path))


def read_icl_tree(path: Path | str) -> dict[str, Any]:
    """Run a configuration file's ``get_config()`` and return what it says, as nested mappings.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file fails, or has no ``get_config`` that returns a configuration.
    """
    path = Path(path)
    tree = _run_get_config(path)
    if not isinstance(tree, Mapping):
        kind = type(tree).__name__
        raise ValueError(f"{path}: get_config() returns {kind}; a mapping of keys is expected")
    try:
        return reference_tree(tree)
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{path}: experiment_kwargs is not the original's ({type(error).__name__}: {error}); "
            "experiment_kwargs.config must hold the configuration"
        ) from None


def config_tree(values: dict[str, Any]) -> Any:
    """Return ``values`` as a ``ConfigDict`` where ml_collections is installed, else as they are."""
    if importlib.util.find_spec("ml_collections") is None:
        return values
    from ml_collections import config_dict

    return config_dict.ConfigDict(values)


def reference_tree(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Reduce an original (jaxline) tree, or one of ours, to the keys of ``IclConfig``."""
    reduced: dict[str, Any] = copy.deepcopy(dict(tree))
    if "experiment_kwargs" in reduced:
        inner = dict(reduced["experiment_kwargs"]["config"])
        inner["training_steps"] = reduced.get("training_steps", IclConfig().training_steps)
        inner["seed"] = reduced.get("random_seed", IclConfig().seed)
        inner.pop("evaluation", None)  # the original evaluates one sequence at a time
        reduced = inner
    for dotted in REFERENCE_ONLY:
        section, key = dotted.split(".")
        if isinstance(reduced.get(section), dict):
            reduced[section].pop(key, None)
    return reduced


def _run_get_config(path: Path) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such configuration file; give one of configs/icl/*.py")
    spec = importlib.util.spec_from_file_location(f"_icl_config_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path}: not a Python file; give one with a get_config() function")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        get_config = module.get_config
        tree = get_config(False) if inspect.signature(get_config).parameters else get_config()
    except AttributeError:
        raise ValueError(f"{path}: has no get_config(); it must return the configuration") from None
    except Exception as error:
        raise ValueError(f"{path}: fails when run ({type(error).__name__}: {error})") from None
    return tree.to_dict() if hasattr(tree, "to_dict") else tree
