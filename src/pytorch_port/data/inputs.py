"""What a run reads: images, class partition, and the batches of each split by number.

A batch is a pure function of (seed, split, number), so neither resuming nor the number of worker
processes can change it.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from pytorch_port.config.schema import DataConfig, IclConfig
from pytorch_port.data.batch import SequenceBatch
from pytorch_port.data.label_sets import LabelSets, label_sets
from pytorch_port.data.loading import SequenceDataset, create_sequence_dataloader, make_spec
from trainrig.data import check_source, load_images
from trainrig.data.bank_transforms import keep_classes, prepare_views, select_exemplars, view_table
from trainrig.data.image_bank import ImageBank
from trainrig.seeding import derive_seed

#: The evaluation regimes and the reference's names of their sequences.
REGIMES = {"holdout": "fewshot_holdout", "no_support": "no_support_zipfian"}
#: Regimes evaluated on finished runs only, likewise.
FINAL_REGIMES = {"common": "no_support_common", "rare": "no_support_rare"}


class IclInputs:
    """Batches for training and evaluation, made on one device.

    Args:
        config: the run's configuration.
        device: where examples are gathered.
        images: float32 or uint8 (K, N, 1, H, W) on ``device``; None for symbols.
        description: provenance of the images, recorded with the run.
        views: (V, H·W) pixels of the views of an image, each of which is a class; None: as stored.

    Raises:
        ValueError: class counts, labels or sequence lengths that do not fit the data.
    """

    def __init__(
        self,
        config: IclConfig,
        device: torch.device,
        images: Tensor | None,
        description: dict[str, Any],
        views: Tensor | None = None,
    ) -> None:
        self.config, self.device, self.images, self.views = config, device, images, views
        self._description = description
        if images is None:
            self._sizes = config.data.symbolic_config.dataset_size, 1
        else:
            n_views = 1 if views is None else len(views)
            self._sizes = images.shape[0] * n_views, images.shape[1]
        self._datasets = {
            "train": self._dataset("train", config.data.train_seqs, config.training.batch_size),
            **{
                regime: self._dataset(regime, mode, config.evaluation.batch_size)
                for regime, mode in REGIMES.items()
            },
        }
        self.label_sets = self._label_sets()

    def _dataset(self, split: str, mode: str, batch_size: int) -> SequenceDataset:
        config = self.config
        seed = derive_seed(config.seed, split)
        make = _make_dataset if config.data.sampler == "device" else _shared_dataset
        return make(
            mode, config.data, self._sizes, config.num_classes, batch_size, seed, self.device
        )

    def _label_sets(self) -> LabelSets:
        data = self.config.data
        partition = self._datasets["train"].spec.partition
        original = "original" in (data.seq_config.labeling_rare, data.seq_config.labeling_common)
        ids = (partition.rare.tolist(), partition.common.tolist()) if original else None
        return label_sets(
            self.config.num_classes,
            data.generator_config.n_rare_classes,
            data.generator_config.n_common_classes,
            ways=data.seq_config.ways,
            labeling_rare=data.seq_config.labeling_rare,
            original_ids=ids,
        ).to(self.device)

    @property
    def example_shape(self) -> tuple[int, int, int] | None:
        """(C, H, W) of an example, None for symbols."""
        if self.images is None:
            return None
        return (self.config.preproc.image_channels, *self.images.shape[-2:])

    def describe(self) -> dict[str, Any]:
        """Return where the examples come from, as plain values."""
        return dict(self._description)

    def dataset(self, split: str) -> SequenceDataset:
        """Return the index batches of ``train`` or of a regime."""
        if split in FINAL_REGIMES and split not in self._datasets:
            size = self.config.evaluation.batch_size
            self._datasets[split] = self._dataset(split, FINAL_REGIMES[split], size)
        return self._datasets[split]

    def training_batches(self, start: int, num_workers: int = 0) -> Iterator[SequenceBatch]:
        """Yield training batches ``start``, ``start`` + 1, ... without end."""
        return self._batches("train", start, None, num_workers)

    def evaluation_batches(
        self, regime: str, start: int, count: int, *, joined: int = 1
    ) -> Iterator[SequenceBatch]:
        """Yield ``count`` batches of a regime, from number ``start``, ``joined`` at a time."""
        return self._batches(regime, start, count, 0, joined)

    @property
    def draws_pixels(self) -> bool:
        """Whether batches hold random pixels, which are drawn for each by its number."""
        noise = self.config.data.generator_config.noise_scale
        random = (d.spec.plan.randomly_generate_rare for d in self._datasets.values())
        return self.images is not None and (noise > 0 or any(random))

    def _batches(
        self, split: str, start: int, count: int | None, num_workers: int, joined: int = 1
    ) -> Iterator[SequenceBatch]:
        noise = self.config.data.generator_config.noise_scale
        loader = create_sequence_dataloader(
            self.dataset(split),
            self.images,
            start_step=start,
            n_steps=count,
            num_workers=num_workers,
            device=self.device,
            channels=self.config.preproc.image_channels,
            noise_scale=noise if self.images is not None else 0.0,
            views=self.views,
            joined=joined,
        )
        return iter(loader)


def _make_dataset(
    mode: str,
    data: DataConfig,
    sizes: tuple[int, int],
    num_classes: int,
    batch_size: int,
    seed: int,
    device: torch.device,
) -> SequenceDataset:
    spec = make_spec(mode, data, *sizes, num_classes)
    return SequenceDataset(spec, batch_size, seed, sampler=data.sampler, device=device)


#: Runs of one process that see the same sequences draw them once.
_shared_dataset = lru_cache(maxsize=64)(_make_dataset)


def load_inputs(
    config: IclConfig,
    device: torch.device,
    *,
    data_dir: str | None = None,
    download: bool = False,
) -> IclInputs:
    """Load the images that ``config`` names and check everything against them.

    Raises:
        FileNotFoundError: no Omniglot where the configuration insists on it.
        ValueError: damaged data, or settings that the data cannot serve.
    """
    check_source(config.data.source)
    if config.data.example_type == "symbolic":
        return IclInputs(config, device, None, {"image_source": "symbolic", "synthetic": False})
    return IclInputs(config, device, *_images(config, device, data_dir, download))


@lru_cache(maxsize=2)
def _bank(source: str, split: str, data_dir: str | None, download: bool, order: str) -> ImageBank:
    options = {"split": split, "download": download, "order": order}
    return load_images(source, data_dir, allow_synthetic=True, **options)


def _images(
    config: IclConfig, device: torch.device, data_dir: str | None, download: bool
) -> tuple[Tensor, dict[str, Any], Tensor | None]:
    data, choices = config.data, config.data.omniglot_config
    # Which drawing is a class's first, and how augmented classes are numbered, is a matter of the
    # order in which the reference reads them.
    reordered = choices.exemplars != "all" or choices.augment_images
    order = "tfds" if reordered else "drawing"
    key = (data.source, choices.omniglot_split, data_dir, download, order)
    return _prepared(key, choices, config.preproc.downsample, device)


@lru_cache(maxsize=2)
def _prepared(
    key: tuple[str, str, str | None, bool, str],
    choices: Any,
    downsample: bool,
    device: torch.device,
) -> tuple[Tensor, dict[str, Any], Tensor | None]:
    """Return the images as the model's device holds them: one copy for all runs of a process.

    Also their description, and the table of views that stands for augmented copies.
    """
    bank = _bank(*key)
    if choices.n_to_keep is not None:
        bank = keep_classes(bank, choices.n_to_keep)
    bank = select_exemplars(bank, choices.exemplars)
    if choices.augment_images:
        bank = prepare_views(bank)
    images = bank.float_images(downsample=True) if downsample else bank.images.unsqueeze(2)
    description = dict(bank.describe())
    if not choices.augment_images:
        return images.to(device), description, None
    views = view_table(images.shape[-1]).to(device)
    description["n_classes"] *= len(views)
    return images.to(device), description, views
