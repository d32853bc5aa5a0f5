"""``PtychoDataContainerTorch``: grouped frames in the layout of the reference's container.

Legend: B groups, N frame side, C frames per group, m probe modes. The container keeps the
reference's channels-last layout; ``images`` and ``positions`` are the model's tensors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ptycho_torch.raw_data import RawDataTorch


@dataclass
class PtychoDataContainerTorch:
    """One grouped data set; see ``from_raw``."""

    X: Tensor  # (B, N, N, C) float32, normalised amplitudes
    Y: Tensor  # (B, N, N, C) complex64; ones where nothing is known
    coords_nominal: Tensor  # (B, 1, 2, C) float32, relative
    coords_true: Tensor  # the same tensor
    nn_indices: Tensor  # (B, C) int32
    global_offsets: Tensor  # (B, 1, 2, 1) float64
    local_offsets: Tensor  # (B, 1, 2, C) float64
    probe: Tensor  # (N, N) or (m, N, N) complex64
    has_labels: bool = False
    objectGuess: Tensor | None = None  # noqa: N815 - the format's key

    @property
    def coords(self) -> Tensor:
        """The reference's third name of the relative coordinates."""
        return self.coords_nominal

    @property
    def Y_I(self) -> Tensor:  # noqa: N802 - the reference's name
        """Label amplitudes (B, N, N, C) float32."""
        return self.Y.abs()

    @property
    def Y_phi(self) -> Tensor:  # noqa: N802 - the reference's name
        """Label phases (B, N, N, C) float32."""
        return self.Y.angle()

    @property
    def images(self) -> Tensor:
        """(B, C, N, N)."""
        return self.X.permute(0, 3, 1, 2).contiguous()

    @property
    def positions(self) -> Tensor:
        """Relative coordinates as the model takes them: (B, C, 1, 2) float64."""
        return self.local_offsets.permute(0, 3, 1, 2)

    @property
    def model_probe(self) -> Tensor:
        """(1, 1, m, N, N)."""
        return self.probe.reshape(1, 1, -1, *self.probe.shape[-2:])

    def __len__(self) -> int:
        return len(self.X)

    def require_labels(self, why: str) -> None:
        """Refuse what needs labels when there are none.

        Raises:
            ValueError: the object is unknown.
        """
        if not self.has_labels:
            raise ValueError(
                f"{why}: the data hold neither Y nor objectGuess; give labels, or train with "
                "model_type 'pinn'"
            )

    @classmethod
    def from_raw(
        cls, raw: RawDataTorch, *, gridsize: int = 1, nsamples: int | None = None, **settings: Any
    ) -> PtychoDataContainerTorch:
        """Group a scan (keywords of ``generate_grouped_data``) and lay it out."""
        count = len(raw) if nsamples is None else nsamples
        grouped = raw.generate_grouped_data(raw.N, nsamples=count, gridsize=gridsize, **settings)
        return cls.from_grouped(grouped, raw.probeGuess)

    @classmethod
    def from_grouped(cls, grouped: dict[str, Any], probe: np.ndarray) -> PtychoDataContainerTorch:
        """Lay out the dictionary of ``generate_grouped_data``.

        Raises:
            ValueError: labels are not complex64.
        """
        frames = torch.from_numpy(np.ascontiguousarray(grouped["X_full"]))
        labels = grouped.get("Y")
        if labels is not None and labels.dtype != np.complex64:
            raise ValueError(f"Y: labels are {labels.dtype}; give complex64")
        local = torch.from_numpy(grouped["coords_relative"])
        nominal = local.float()
        obj = grouped.get("objectGuess")
        return cls(
            X=frames,
            Y=(
                torch.ones(frames.shape, dtype=torch.complex64)
                if labels is None
                else torch.from_numpy(np.ascontiguousarray(labels))
            ),
            coords_nominal=nominal,
            coords_true=nominal,
            nn_indices=torch.from_numpy(grouped["nn_indices"].astype(np.int32)),
            global_offsets=torch.from_numpy(grouped["coords_offsets"]),
            local_offsets=local,
            probe=torch.from_numpy(np.asarray(probe, dtype=np.complex64)),
            has_labels=labels is not None,
            objectGuess=None if obj is None else torch.from_numpy(obj),
        )
