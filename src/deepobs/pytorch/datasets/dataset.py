"""The contract of a data set: four loaders of full batches, on the configured device."""

from __future__ import annotations

import abc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from deepobs.pytorch import config
from deepobs.pytorch.datasets.loaders import Loader
from trainrig.data.catalogue import find

#: Fixed, so that every run of the ``fixed`` mode validates on the same examples.
VALIDATION_SPLIT_SEED = 42


class DataSet(abc.ABC):
    """A data set as four loaders.

    Attributes:
        batch_size: examples per batch; incomplete batches are left out everywhere.
        train: shuffled training batches (in order for text).
        train_eval: the part of the training data that is evaluated.
        valid: validation batches, or None: the published line has no validation set, so there is
            one only in the ``fixed`` mode.
        test: test batches, in file order.
        seed: the random seed torch had when the object was made.

    Args:
        batch_size: at least 1.

    Raises:
        ValueError: not a positive integer, or larger than one of the parts.
        FileNotFoundError: the data are not there.
    """

    #: Short name, and the folder that messages mention.
    name: str = ""
    train: Loader
    train_eval: Loader
    valid: Loader | None
    test: Loader

    def __init__(self, batch_size: int) -> None:
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise ValueError(
                f"{self.name}: batch_size is {batch_size!r}; a positive integer is expected"
            )
        self.batch_size = batch_size
        self.seed = torch.initial_seed() % 2**63
        self.device = torch.device(config.get_default_device())
        self.dtype = config.get_dtype()
        self.compat = config.get_compat()
        self.valid = None
        self.make_loaders()
        self._check_sizes()

    @abc.abstractmethod
    def make_loaders(self) -> None:
        """Set ``train``, ``train_eval``, ``test`` and, where there is one, ``valid``."""

    @property
    def loaders(self) -> dict[str, Loader]:
        """The loaders by phase name."""
        every = {"train": self.train, "train_eval": self.train_eval, "test": self.test}
        return every | ({"valid": self.valid} if self.valid is not None else {})

    def state_dict(self) -> dict[str, int]:
        """Return how many passes each loader has begun."""
        return {name: loader.passes for name, loader in self.loaders.items()}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue with the passes that ``state_dict`` recorded."""
        for name, loader in self.loaders.items():
            loader.passes = int(state[name])

    def _check_sizes(self) -> None:
        for phase, loader in self.loaders.items():
            if len(loader) == 0:
                size = getattr(loader, "size", None)
                has = f" of {size}" if size is not None else ""
                raise ValueError(
                    f"{self.name}: batch_size {self.batch_size} is larger than the {phase} "
                    f"set{has}; choose a smaller one"
                )


def find_folder(name: str) -> Path:
    """Return the first folder that holds a set's files; see ``trainrig.data.catalogue``.

    Raises:
        FileNotFoundError: none does; the message says how to get the set.
    """
    return find(name, config.get_data_dirs())


_CACHE: dict[tuple[Any, ...], Any] = {}


def cached(reader: Callable[[Path, str], Any], folder: Path, split: str) -> Any:
    """Return ``reader(folder, split)``, read again only when a file of the folder has changed."""
    files = tuple(
        (path.name, path.stat().st_size, path.stat().st_mtime_ns)
        for path in sorted(folder.iterdir())
        if path.is_file()
    )
    key = (reader.__module__, reader.__name__, str(folder.resolve()), split)
    stored = _CACHE.get(key)
    if stored is None or stored[0] != files:
        stored = _CACHE[key] = (files, reader(folder, split))
    return stored[1]
