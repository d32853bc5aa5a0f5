"""War and Peace by characters, in consecutive chunks; never shuffled."""

from __future__ import annotations

import torch

from deepobs.pytorch.datasets.dataset import DataSet, cached, find_folder
from deepobs.pytorch.datasets.loaders import TextLoader
from trainrig.data.tolstoi import read_tolstoi

SEQ_LENGTH = 50
TRAIN_EVAL_CHARACTERS = 653_237


class tolstoi(DataSet):  # noqa: N801 - DeepOBS name
    """Batches ``(x, y)`` of character numbers (B, 50); y is x one character later.

    Attributes:
        vocabulary: number of different characters in the files, 83 for the published text.
    """

    name = "tolstoi"

    def __init__(self, batch_size: int, seq_length: int = SEQ_LENGTH) -> None:
        self.seq_length = seq_length
        super().__init__(batch_size)

    def make_loaders(self) -> None:
        """Cut the texts into chunks.

        The reference meant to evaluate on as many training characters as the test set has, forgot
        the sequence length, and so evaluates on all of them; the fixed mode does what was meant.
        """
        folder = find_folder(self.name)
        train, test = (cached(read_tolstoi, folder, split) for split in ("train", "test"))
        self.vocabulary = max(train.vocabulary, test.vocabulary)
        characters, held_out = train.characters, None
        limit = TRAIN_EVAL_CHARACTERS // self.batch_size
        if self.compat == "fixed":
            cut = max(len(characters) - TRAIN_EVAL_CHARACTERS, len(characters) // 2)
            characters, held_out = characters[:cut], characters[cut:]
            limit //= self.seq_length
        self.train = self._loader("train", characters)
        self.train_eval = self._loader("train_eval", characters, limit)
        self.test = self._loader("test", test.characters)
        if held_out is not None:
            self.valid = self._loader("valid", held_out)

    def _loader(self, name: str, characters: object, limit: int | None = None) -> TextLoader:
        on_device = torch.as_tensor(characters).to(self.device)
        return TextLoader(name, on_device, self.batch_size, self.seq_length, limit)
