"""ImageNet from image folders, with the reference's 1001 classes (0 is background)."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from deepobs.pytorch import config
from deepobs.pytorch.datasets.dataset import VALIDATION_SPLIT_SEED, DataSet, find_folder
from deepobs.pytorch.datasets.image_ops import standardize
from deepobs.pytorch.datasets.loaders import Batch, Loader
from deepobs.pytorch.tf_ops import resize_bilinear
from trainrig.device import send
from trainrig.files import reading

SMALLER_SIDE_PX, CROP_PX = 256, 224
SUFFIXES = {".jpeg", ".jpg", ".png"}
SPLITS = {"train": ("train",), "test": ("val", "validation", "test")}


def list_images(folder: Path) -> list[tuple[Path, int]]:
    """Return (file, class index) of ``folder/<synset>/<image>``; indices start at 1.

    Raises:
        FileNotFoundError: no image in it.
    """
    synsets = sorted(path for path in folder.iterdir() if path.is_dir())
    files = [
        (path, number)
        for number, synset in enumerate(synsets, start=1)
        for path in sorted(synset.iterdir())
        if path.suffix.lower() in SUFFIXES
    ]
    if not files:
        raise FileNotFoundError(f"{folder}: no images; expected <synset>/<name>.JPEG below it")
    return files


def load_image(path: Path) -> Tensor:
    """Return float32 (3, H, W) in [0, 1], the smaller side resized to 256 pixels."""
    import numpy as np
    from PIL import Image

    with reading(path, "image; replace the file"), Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
    x = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].to(torch.float32) / 255
    ratio = SMALLER_SIDE_PX / min(x.shape[-2:])
    height, width = (round(n * ratio) for n in x.shape[-2:])
    return resize_bilinear(x, height, width)[0]


def center_crop(x: Tensor, size: int) -> Tensor:
    """Cut the central ``size`` x ``size`` window."""
    top, left = ((n - size) // 2 for n in x.shape[-2:])
    return x[..., top : top + size, left : left + size]


class FolderLoader(Loader):
    """Decodes the files of each batch, with threads where ``config`` asks for workers."""

    def __init__(
        self,
        name: str,
        files: list[tuple[Path, int]],
        data: DataSet,
        *,
        shuffle: bool = False,
        augment: bool = False,
        limit: int | None = None,
    ) -> None:
        n_batches = len(files) // data.batch_size
        super().__init__(name, n_batches if limit is None else min(limit, n_batches), data.seed)
        self.files, self.size, self.data = files, len(files), data
        self.shuffle, self.augment = shuffle, augment

    def batches(self, pass_index: int, start: int = 0) -> Iterator[Batch]:
        """Yield ``(x, y)`` of shapes (B, 3, 224, 224) and (B,)."""
        cpu, size = torch.device("cpu"), self.data.batch_size
        order = torch.arange(self.size)
        if self.shuffle:
            order = torch.randperm(self.size, generator=self._generator(cpu, "order", pass_index))
        workers = config.get_num_workers()
        with ThreadPoolExecutor(max(workers, 1)) as pool:
            load = partial(self._example, pass_index)
            for index in range(start, self.n_batches):
                rows = order[index * size : (index + 1) * size][self.rows].tolist()
                images = pool.map(load, rows) if workers else map(load, rows)
                x = standardize(torch.stack(list(images)))
                y = torch.tensor([self.files[row][1] for row in rows])
                device = self.data.device
                yield send(x, device, self.data.dtype), send(y, device)

    def _example(self, pass_index: int, row: int) -> Tensor:
        image = load_image(self.files[row][0])
        if not self.augment:
            return center_crop(image, CROP_PX)
        image = center_crop(image, SMALLER_SIDE_PX)
        generator = self._generator(torch.device("cpu"), "crop", pass_index, row)
        free = SMALLER_SIDE_PX - CROP_PX + 1
        top, left = torch.randint(0, free, (2,), generator=generator).tolist()
        image = image[:, top : top + CROP_PX, left : left + CROP_PX]
        mirrored = bool(torch.rand((), generator=generator) < 0.5)
        return image.flip(-1) if mirrored else image


class imagenet(DataSet):  # noqa: N801 - DeepOBS name
    """Batches (B, 3, 224, 224), labels (B,) in 1..1000.

    The 50,000 validation images are the test set, as in the reference.
    """

    name = "imagenet"

    def __init__(
        self, batch_size: int, train_eval_size: int = 50_000, data_augmentation: bool = True
    ) -> None:
        self.train_eval_size, self.data_augmentation = train_eval_size, data_augmentation
        super().__init__(batch_size)

    def make_loaders(self) -> None:
        """List the files; nothing is decoded before it is needed."""
        root = find_folder(self.name)
        train = list_images(root / "train")
        test = list_images(self._test_folder(root))
        few, fixed = self.train_eval_size // self.batch_size, self.compat == "fixed"
        augment = self.data_augmentation
        if fixed:
            generator = torch.Generator().manual_seed(VALIDATION_SPLIT_SEED)
            order = torch.randperm(len(train), generator=generator).tolist()
            cut = min(self.train_eval_size, len(train) // 2)
            self.valid = FolderLoader("valid", [train[i] for i in order[:cut]], self)
            train = [train[i] for i in order[cut:]]
        self.train = FolderLoader("train", train, self, shuffle=True, augment=augment)
        self.train_eval = FolderLoader(
            "train_eval", train, self, shuffle=not fixed, augment=augment and not fixed, limit=few
        )
        self.test = FolderLoader("test", test, self)

    def _test_folder(self, root: Path) -> Path:
        for name in SPLITS["test"]:
            if (root / name).is_dir():
                return root / name
        raise FileNotFoundError(f"{root / 'val'}: missing; the validation images are the test set")
