"""The symbolic set: class, example and integer are one and the same.

The example embedding table has one row per class of the model's head, so a set is usable only if
it covers the partition *and* every id has a row. The reference's shipped values (1,000 symbols,
1,623 classes) fail the first, and it indexes past its data.
"""

from __future__ import annotations

import torch
from torch import Tensor


def symbolic_ids(dataset_size: int) -> Tensor:
    """Return the examples 0 .. dataset_size - 1, int64 (dataset_size,).

    Raises:
        ValueError: ``dataset_size`` < 1.
    """
    if dataset_size < 1:
        raise ValueError(f"symbolic dataset_size: {dataset_size} is not positive; give at least 1")
    return torch.arange(dataset_size)


def check_symbolic(dataset_size: int, n_partitioned: int, num_classes: int) -> None:
    """Raise unless ``dataset_size`` symbols serve a partition and a model.

    Args:
        dataset_size: number of symbols.
        n_partitioned: rare + common + holdout classes.
        num_classes: rows of the model's example table, which is the size of its head.

    Raises:
        ValueError: fewer symbols than partitioned classes, or ids without a row in the table.
    """
    symbolic_ids(dataset_size)
    if dataset_size < n_partitioned:
        raise ValueError(
            f"symbolic dataset_size: {dataset_size} symbols for {n_partitioned} classes "
            f"(rare + common + holdout); give at least {n_partitioned}"
        )
    if dataset_size > num_classes:
        raise ValueError(
            f"symbolic dataset_size: ids reach {dataset_size - 1}, the example table has "
            f"{num_classes} rows; give at most {num_classes} symbols"
        )
