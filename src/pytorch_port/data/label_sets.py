"""Which labels are rare, common and few-shot, by the name of a labelling.

Source: icl reference, ``experiment/experiment.py``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

POLYSEMY = "ordered_polysemy"


@dataclass(frozen=True, slots=True)
class LabelSets:
    """Which labels are rare, common and few-shot: three masks (K,), on the logits' device."""

    rare: Tensor
    common: Tensor
    fewshot: Tensor
    polysemy: int = 1
    n_rare: int = 0

    def to(self, device: torch.device | str) -> LabelSets:
        """Return the same sets on ``device``."""
        rare, common, fewshot = (m.to(device) for m in (self.rare, self.common, self.fewshot))
        return LabelSets(rare, common, fewshot, self.polysemy, self.n_rare)


def polysemy_factor(labeling_rare: str) -> int:
    """Return X of ``ordered_polysemyX``, and 1 for every other labeling.

    Raises:
        ValueError: X is not a positive integer.
    """
    if not labeling_rare.startswith(POLYSEMY):
        return 1
    text = labeling_rare.removeprefix(POLYSEMY)
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"labeling_rare: {labeling_rare!r}; give {POLYSEMY}X with X >= 1")
    return int(text)


def label_sets(
    num_classes: int,
    n_rare: int,
    n_common: int,
    *,
    ways: int = 2,
    labeling_rare: str = "ordered",
    original_ids: tuple[Iterable[int], Iterable[int]] | None = None,
    defects: Literal["fixed", "reference"] = "fixed",
) -> LabelSets:
    """Build the label sets of a labeling.

    ``ordered``: rare 0..n_rare-1, then common. ``original``: the class ids themselves.
    ``ordered_polysemyX``: rare 0..X·n_rare-1, common the ``n_common`` labels after them.

    Args:
        num_classes: K.
        n_rare: rare classes.
        n_common: common classes.
        ways: few-shot labels are 0..ways-1.
        labeling_rare: ``ordered``, ``ordered_polysemyX``, or anything else for rare labels that
            are numbered like ``ordered``.
        original_ids: (rare class ids, common class ids) for the labeling ``original``.
        defects: ``reference`` ends the polysemy range of common labels at n_rare + n_common,
            which is normally empty; ``fixed`` ends it at X·n_rare + n_common.
    """
    # Deviation: in the reference the common labels under polysemy are an empty range.
    factor = polysemy_factor(labeling_rare)
    end = factor * n_rare + n_common if defects == "fixed" else n_rare + n_common
    rare_ids: Iterable[int] = range(factor * n_rare)
    common_ids: Iterable[int] = range(factor * n_rare, end)
    if original_ids is not None:
        rare_ids, common_ids = original_ids
    rare, common, fewshot = (_mask(ids, num_classes) for ids in (rare_ids, common_ids, range(ways)))
    return LabelSets(rare, common, fewshot, factor, n_rare)


def _mask(ids: Iterable[int], num_classes: int) -> Tensor:
    chosen = [int(i) for i in ids]
    if chosen and not 0 <= min(chosen) <= max(chosen) < num_classes:
        raise ValueError(
            f"label_sets: label {max(chosen)} does not fit {num_classes} classes; "
            "the head needs one output per label"
        )
    mask = torch.zeros(num_classes, dtype=torch.bool)
    mask[chosen] = True
    return mask
