"""Grouped frames as training batches, gathered row by row from memory or from a memory map.

Legend: B batch, C frames per group, N frame side. Nothing is copied ahead: a batch reads its own
frames, so a set larger than the memory trains from disk.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from ptycho_torch.physics.forward import extract_patches
from ptycho_torch.raw_data import RawDataTorch
from ptycho_torch.scan.grouping import Groups
from trainrig.distributed import Team
from trainrig.seeding import derive_seed

VALIDATION_SHARE = 0.05


def check_frame_side(scan: RawDataTorch, side: int) -> None:
    """Refuse frames of another size than the network's."""
    if side != scan.N:
        raise ValueError(
            f"{scan.source}: frames of {scan.N} pixels for a network of N = {side}; "
            "set N to the frames' size"
        )


def check_labels(scan: RawDataTorch) -> None:
    """Refuse a scan that supervised training cannot learn from."""
    if scan.objectGuess is None and scan.Y is None and scan.label_amp is None:
        raise ValueError(
            f"{scan.source}: supervised training needs labels, and the file holds neither "
            "objectGuess, Y nor label_amp and label_phase; add them or use model_type pinn"
        )


class GroupDataset(Dataset):
    """Groups of one scan; ``__getitems__`` returns a whole batch.

    Args:
        scan: frames and positions.
        groups: index table.
        factor: from stored amplitudes to the network's photon amplitudes s·X.
        labels: whether batches carry label patches, in stored (physical) units.
        rows: the groups to use, all by default.

    Attributes:
        team: the processes that share each batch, and this one's place among them.
    """

    def __init__(
        self,
        scan: RawDataTorch,
        groups: Groups,
        factor: float,
        *,
        labels: bool = False,
        rows: np.ndarray | None = None,
    ) -> None:
        chosen = slice(None) if rows is None else rows
        self.scan, self.factor, self.labels = scan, float(factor), labels
        self.team = Team(0, 1)
        self.index = groups.nn_indices[chosen]
        self.coords = groups.coords_nn[chosen, 0].transpose(0, 2, 1)  # (B, C, 2)
        self.relative = groups.coords_relative[chosen, 0].transpose(0, 2, 1)
        if labels:
            check_labels(scan)

    def __len__(self) -> int:
        return len(self.index)

    def __getitems__(self, rows: list[int]) -> dict[str, Any]:
        """This process's part of a batch; ``rows`` are those of the whole batch.

        Returns:
            ``images`` (B, C, N, N) s·X, zero at bad pixels; ``relative`` (B, C, 2); ``labels``
            (B, C, N, N); ``bad`` (B, C, N, N) bool, where the scan has a mask;
            ``count``, the rows of the whole batch; ``weight``, by which the mean over the own rows
            counts in the mean over the processes.
        """
        count, (rows, weight) = len(rows), self.team.split(rows)
        index = self.index[rows]
        frames = np.asarray(self.scan.diff3d[index.reshape(-1)], dtype=np.float32)
        images = torch.from_numpy(frames).view(*index.shape, *frames.shape[1:]) * self.factor
        relative = torch.from_numpy(self.relative[rows])
        batch = {"images": images, "relative": relative, "count": count, "weight": weight}
        bad = self.scan.bad_of(index.reshape(-1))
        if bad is not None:
            batch["bad"] = torch.from_numpy(np.array(bad)).view(images.shape)
        if self.labels:
            batch["labels"] = self._labels(index, self.coords[rows])
        return batch

    def _labels(self, index: np.ndarray, coords: np.ndarray) -> Tensor:
        flat = index.reshape(-1)
        if self.scan.label_amp is not None and self.scan.label_phase is not None:
            amplitude = torch.from_numpy(np.asarray(self.scan.label_amp[flat], np.float32))
            phase = torch.from_numpy(np.asarray(self.scan.label_phase[flat], np.float32))
            patches = torch.polar(amplitude, phase)
        elif self.scan.Y is not None:
            patches = torch.from_numpy(np.asarray(self.scan.Y[flat]))
        else:
            obj = torch.from_numpy(self.scan.objectGuess)
            patches = extract_patches(obj, torch.from_numpy(coords.reshape(-1, 2)), self.scan.N)
        return patches.reshape(*index.shape, self.scan.N, self.scan.N)


class EpochShuffle(Sampler[int]):
    """A permutation that is a pure function of (seed, epoch), so that a resumed run repeats it.

    Attributes:
        skip: items that the next iteration, and no other, leaves out at its beginning.
    """

    def __init__(self, count: int, seed: int, take: int | None = None) -> None:
        self.count, self.seed, self.epoch, self.skip = count, seed, 0, 0
        self.take = count if take is None else min(take, count)  # items per epoch

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.take

    def __iter__(self) -> Iterator[int]:
        seed = derive_seed("shuffle", self.seed, self.epoch) % 2**63
        generator = torch.Generator().manual_seed(seed)
        start, self.skip = self.skip, 0
        order = torch.randperm(self.count, generator=generator)[: self.take]
        return iter(order.tolist()[start:])


def _whole(batch: Any) -> Any:
    return batch


def loader(
    dataset: GroupDataset,
    batch_size: int,
    *,
    seed: int | None = None,
    take: int | None = None,
    num_workers: int = 0,
    pin_memory: bool = False,
) -> DataLoader:
    """Batches in shuffled order (with a seed; ``take`` rows per epoch) or in order (without)."""
    sampler = None if seed is None else EpochShuffle(len(dataset), seed, take)
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=sampler,
        collate_fn=_whole,
        num_workers=num_workers,
        pin_memory=pin_memory,
        persistent_workers=num_workers > 0,
        generator=torch.Generator(),  # a run's own random numbers are left alone
    )


def split_tail(count: int, share: float = VALIDATION_SHARE) -> tuple[np.ndarray, np.ndarray]:
    """Training rows and the last ``share`` of rows for validation, at least one of each."""
    held = min(max(1, round(count * share)), count - 1) if count > 1 else 0
    rows = np.arange(count)
    return (rows[:-held], rows[-held:]) if held else (rows, rows)
