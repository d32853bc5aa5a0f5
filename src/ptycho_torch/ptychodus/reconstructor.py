"""An own entry in Ptychodus: network, refinement or both, on the input object's exact grid.

The only module that imports ptychodus. ``register(model)`` adds the entry to a running
``ModelCore``; ``python -m ptycho_torch.ptychodus`` is the batch program with the entry in it.
Every few epochs an intermediate object is yielded, so that a live view follows.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from ptychodus.api.object import Object
from ptychodus.api.product import LossValue
from ptychodus.api.reconstruct import (
    ReconstructInput,
    ReconstructOutput,
    TrainableReconstructor,
    TrainOutput,
)

from ptycho_torch.physics.canvas import Grid
from ptycho_torch.raw_data import RawDataTorch

logger = logging.getLogger(__name__)

LIBRARY, NAME = "Trainrig", "Hybrid"
EPOCHS, YIELD_EVERY = 40, 10


def scan_of(parameters: ReconstructInput) -> RawDataTorch:
    """Ptychodus's input as a scan: counts, positions in pixels of the input object."""
    product = parameters.product
    geometry = product.object_.get_geometry()
    arrays = {
        "xcoords": np.asarray(geometry.map_probe_positions_to_object_x_px(product.probe_positions)),
        "ycoords": np.asarray(geometry.map_probe_positions_to_object_y_px(product.probe_positions)),
        "diff3d": np.asarray(parameters.diffraction_patterns),
        "probeGuess": np.asarray(product.probes.get_probe_no_opr().get_array()),
        "bad_pixels": np.asarray(parameters.bad_pixels, dtype=bool),
        "measurement_domain": np.array("counts"),
    }
    return RawDataTorch.from_arrays(arrays, "Ptychodus")


class HybridReconstructor(TrainableReconstructor):
    """Network start, if a model is loaded, then iterative refinement.

    Args:
        epochs: of the refinement.
        yield_every: epochs between intermediate results.
    """

    def __init__(self, epochs: int = EPOCHS, yield_every: int = YIELD_EVERY) -> None:
        super().__init__()
        self.epochs, self.yield_every = epochs, yield_every
        self._model_path: Path | None = None

    @property
    def name(self) -> str:
        """Second half of the algorithm's key."""
        return NAME

    def get_progress_goal(self) -> int:
        """Epochs."""
        return self.epochs

    def reconstruct(self, parameters: ReconstructInput) -> Iterator[ReconstructOutput]:
        """Yield the object every few epochs and at the end, shaped as the input object."""
        from ptycho_torch.recon.hybrid import start_from
        from ptycho_torch.recon.inference import reconstruct
        from ptycho_torch.recon.persistence import load_model
        from ptycho_torch.recon.refine import RefineSettings, refine

        scan = scan_of(parameters)
        shape = parameters.product.object_.get_layer(0).shape
        grid = Grid(tuple(shape), 0.0, 0.0)
        start = None
        if self._model_path is not None:
            start = start_from(reconstruct(load_model(self._model_path), scan, grid=grid), scan)
        settings = RefineSettings(epochs=self.epochs)
        for state in refine(scan, settings, grid=grid, start=start):
            if state.epoch % self.yield_every == 0 or state.epoch == self.epochs:
                yield self._output(parameters, state.numpy(), state.losses, state.epoch)

    @staticmethod
    def _output(
        parameters: ReconstructInput, array: np.ndarray, losses: list[float], epoch: int
    ) -> ReconstructOutput:
        before = parameters.product.object_
        found = Object(
            array=array,
            layer_spacing_m=[],
            pixel_geometry=before.get_pixel_geometry(),
            center=before.get_center(),
        )
        values = [LossValue(epoch=i, value=v) for i, v in enumerate(losses)]
        product = replace(parameters.product, object_=found, losses=values)
        return ReconstructOutput(product=product, progress=epoch)

    def is_model_loaded(self) -> bool:
        """Whether a network will give the start."""
        return self._model_path is not None

    def get_model_file_filter(self) -> str:
        """For file dialogs."""
        return "Checkpoints (*.ckpt)"

    def get_model_file_extension(self) -> str:
        """With the dot."""
        return ".ckpt"

    def load_model_from_file(self, file_path: Path) -> None:
        """Remember the checkpoint; it is loaded when reconstructing."""
        self._model_path = Path(file_path)

    def save_model(self, file_path: Path) -> None:
        """Copy the loaded checkpoint."""
        if self._model_path is None:
            raise ValueError("save_model: no model is loaded; train or load one first")
        shutil.copyfile(self._model_path, file_path)

    def get_training_data_file_filter(self) -> str:
        """For file dialogs."""
        return "NumPy archives (*.npz)"

    def export_training_data(self, file_path: Path, parameters: ReconstructInput) -> None:
        """Write the canonical NPZ, amplitudes and their declared domain."""
        scan = scan_of(parameters)
        obj = np.asarray(parameters.product.object_.get_layer(0), dtype=np.complex64)
        replace(scan, objectGuess=obj).to_file(file_path)

    def train(self, input_path: Path, output_path: Path) -> Iterator[TrainOutput]:
        """Train on a folder's scan and keep the best checkpoint for reconstructing."""
        from ptycho_torch.api import base_api
        from ptycho_torch.lightning_utils import find_best_checkpoint
        from ptycho_torch.model import PtychoPINN_Lightning

        loader = base_api.PtychoDataLoader(
            input_path, base_api.ConfigManager(), output_dir=output_path
        )
        manager = loader.config_manager
        manager.data_config.N = loader.scan.N
        manager.data_config.C, manager.data_config.grid_size = 1, (1, 1)
        manager.model_config.n_filters_scale, manager.training_config.device = 1, "cpu"
        model = base_api.PtychoModel._new_model(PtychoPINN_Lightning, manager)
        trainer = base_api.Trainer._from_lightning(model, loader, config_manager=manager)
        trainer.train()
        metrics = trainer._trainer.callback_metrics
        epochs = trainer._trainer.current_epoch
        assert loader.output_dir is not None
        self._model_path = find_best_checkpoint(loader.output_dir)
        yield TrainOutput(
            training_loss=[LossValue(epoch=epochs, value=float(metrics["train_loss"]))],
            validation_loss=[LossValue(epoch=epochs, value=float(metrics["val_loss"]))],
            progress=epochs,
        )


def register(model: Any, *, epochs: int = EPOCHS) -> str:
    """Add the entry to a running ``ModelCore`` and return its key.

    Ptychodus has no public way to add a reconstructor; its algorithm parameter's table is used.

    Raises:
        RuntimeError: this Ptychodus keeps its table elsewhere.
    """
    api = model.processing_core.algorithm_parameter
    table: Any = getattr(api, "_reconstructor_map", None)
    if not hasattr(table, "__setitem__"):
        raise RuntimeError(
            "register: this Ptychodus keeps its reconstructors elsewhere; versions 1.7.* are known"
        )
    key = api.generate_key(LIBRARY, NAME)
    table[key] = HybridReconstructor(epochs)
    return key
