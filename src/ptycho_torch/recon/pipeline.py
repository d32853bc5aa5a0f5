"""How a scan becomes an object: a network, iterations, or both, in one callable ``Method``.

The same method serves the scan itself, its two halves (half-data resolution) and its resampled
copies (uncertainty), so that what is measured is the method that was used.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from ptycho_torch.model import PtychoPINN_Lightning
from ptycho_torch.physics.canvas import Grid
from ptycho_torch.raw_data import RawDataTorch
from ptycho_torch.recon.hybrid import hybrid
from ptycho_torch.recon.inference import Reconstruction, open_stream, reconstruct
from ptycho_torch.recon.refine import RefineSettings, RefineState


@dataclass
class Method:
    """Settings of one way to reconstruct.

    Args:
        settings: of the refinement; 0 epochs for none.
        modes: probe modes while refining.
        model: a trained network; None starts the refinement flat.
        device: where to compute.
        batch_size: groups per pass of the network.
        nsamples: groups, every frame as anchor by default.
        stream: feed the network with chunks of so many frames instead.
    """

    settings: RefineSettings
    modes: int = 1
    model: PtychoPINN_Lightning | None = None
    device: str = "cpu"
    batch_size: int | None = None
    nsamples: int | None = None
    stream: int | None = None

    def describe(self) -> dict[str, Any]:
        """The refinement's settings as plain data; the seed is each call's own."""
        settings = asdict(self.settings)
        return {"modes": self.modes, **{k: v for k, v in settings.items() if k != "seed"}}

    def network(
        self, scan: RawDataTorch, seed: int = 0, grid: Grid | None = None
    ) -> Reconstruction | None:
        """The network's own reconstruction; None without a network."""
        if self.model is None:
            return None
        if self.stream is None:
            options = {"batch_size": self.batch_size, "nsamples": self.nsamples}
            return reconstruct(
                self.model, scan, grid=grid, seed=seed, device=self.device, **options
            )
        gridsize = self.model.data_config.grid_size[0]
        if gridsize > 1:
            raise ValueError(
                f"--stream: the network takes groups of {gridsize}x{gridsize} frames, which are "
                "known only when all have arrived; give a model of gridsize 1"
            )
        stream = open_stream(self.model, scan, grid, self.device)
        for start in range(0, len(scan), self.stream):
            rows = slice(start, start + self.stream)
            stream.add(scan.diff3d[rows], scan.coords[rows])
        return Reconstruction(stream.object(), stream.grid, stream.covered(), stream.patterns_per_s)

    def refine(
        self,
        scan: RawDataTorch,
        found: Reconstruction | None,
        seed: int = 0,
        grid: Grid | None = None,
        on_epoch: Callable[[RefineState], None] | None = None,
    ) -> tuple[Reconstruction, RefineState | None]:
        """Refine a network's reconstruction, or a flat start; unchanged with 0 epochs."""
        if found is not None and not self.settings.epochs:
            return found, None
        settings = replace(self.settings, seed=seed)
        return hybrid(
            scan,
            settings,
            network=found,
            grid=grid,
            modes=self.modes,
            device=self.device,
            on_epoch=on_epoch,
        )

    def __call__(
        self, scan: RawDataTorch, seed: int = 0, grid: Grid | None = None
    ) -> Reconstruction:
        """Network and refinement in turn."""
        return self.refine(scan, self.network(scan, seed, grid), seed, grid)[0]


def method_of(args: argparse.Namespace, settings: RefineSettings) -> Method:
    """The method that ``infer_ptycho.py``'s flags describe."""
    from ptycho_torch.recon.persistence import load_model
    from trainrig.device import choose_device

    name = {"gpu": "cuda", "mps": "cpu"}.get(args.accelerator, args.accelerator)
    model = None
    if args.model_path is not None:
        model = load_model(args.model_path, trust_pickle=args.trust_pickle)
        if args.middle_trim is not None:
            model.inference_config.middle_trim = args.middle_trim
    return Method(
        settings,
        modes=args.probe_modes or 1,
        model=model,
        device=choose_device(name).type,
        batch_size=args.inference_batch_size,
        nsamples=args.n_images,
        stream=args.stream,
    )
