"""The programmatic workflow: train, stitch, save, in one call; and the choice of backend.

``run_cdi_example_torch`` mirrors the reference's entry point. ``run_cdi_example_with_backend``
writes the configuration into the flat dictionary first and then routes by ``config.backend``.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ptycho_torch.config import params
from ptycho_torch.config.canonical import TrainingConfig
from ptycho_torch.config.execution import ExecutionConfig
from ptycho_torch.config_bridge import to_torch_side
from ptycho_torch.data.dataset import check_frame_side, check_labels
from ptycho_torch.data_container import PtychoDataContainerTorch
from ptycho_torch.model import PtychoPINN_Lightning
from ptycho_torch.raw_data import RawDataTorch
from ptycho_torch.recon.inference import reconstruct
from ptycho_torch.recon.persistence import save_bundle
from ptycho_torch.train.inputs import TrainingData
from ptycho_torch.train.train import History, trained
from trainrig.errors import one_of
from trainrig.recorder import Recorder
from trainrig.seeding import PortableDraws, derive_seed

logger = logging.getLogger(__name__)

Scan = Any  # RawDataTorch, a duck-typed RawData, or a container


def as_raw(data: Scan, where: str) -> RawDataTorch:
    """A ``RawDataTorch`` from one, or from any object with the reference's RawData attributes.

    Raises:
        TypeError: anything else.
    """
    if isinstance(data, RawDataTorch):
        return data
    names = ("xcoords", "ycoords", "diff3d", "probeGuess")
    if all(getattr(data, name, None) is not None for name in names):
        arrays = {name: np.asarray(getattr(data, name)) for name in names}
        obj = getattr(data, "objectGuess", None)
        if obj is not None:
            arrays["objectGuess"] = np.asarray(obj)
        return RawDataTorch.from_arrays(arrays, where)
    raise TypeError(f"{where}: {type(data).__name__} is not a scan; give RawData or RawDataTorch")


def build_model(config: TrainingConfig, execution: ExecutionConfig) -> PtychoPINN_Lightning:
    """An untrained ``PtychoPINN_Lightning`` for a canonical configuration, from its seed."""
    config.validate()
    check_overlap(config, execution.overlap_frames)
    torch.manual_seed(derive_seed("weights", execution.seed))
    data, model, training, inference = to_torch_side(
        config,
        learning_rate=execution.learning_rate,
        seed=execution.seed,
        overlap_frames=execution.overlap_frames,
    )
    with PortableDraws():
        return PtychoPINN_Lightning(model, data, training, inference)


def training_data(
    config: TrainingConfig, scan: RawDataTorch, held: RawDataTorch | None
) -> TrainingData:
    """Return what a configuration trains on: frames of a scan, and how they are grouped."""
    if config.n_subsample is not None:
        scan = scan.subsample(config.n_subsample, config.subsample_seed)
    count, grouping = group_count(config, len(scan)), grouping_settings(config)
    return TrainingData(scan=scan, validation=held, nsamples=count, grouping=grouping)


def grouping_settings(config: TrainingConfig) -> dict[str, Any]:
    """Return the keywords of ``RawDataTorch.group`` that a configuration stands for."""
    return {
        "K": config.neighbor_count,
        "sequential": config.sequential_sampling,
        "enable_oversampling": config.enable_oversampling,
        "neighbor_pool_size": config.neighbor_pool_size,
    }


def check_overlap(config: TrainingConfig, overlap: int) -> None:
    """Raise ``ValueError`` where neighbouring frames cannot be merged while training."""
    model = config.model
    if overlap > 1 and not (
        model.gridsize == 1 and model.object_big and model.model_type == "pinn"
    ):
        raise ValueError(
            f"--overlap-frames: {overlap} with gridsize {model.gridsize}, object_big "
            f"{model.object_big}, model_type {model.model_type}; it needs 1, True and pinn"
        )


def check_inputs(
    scan: RawDataTorch, held: RawDataTorch | None, config: TrainingConfig, overlap: int = 0
) -> None:
    """Refuse what a run would refuse later, before anything is written.

    Raises:
        ValueError: a setting out of range, frames of another size than the network's, a group size
            that the scan does not allow, labels that are missing.
        BackendMissingError: the backend's package is not installed.
    """
    config.validate()
    check_overlap(config, overlap)
    check_backend(config.backend)
    for one in (scan, held):
        if one is None:
            continue
        check_frame_side(one, config.model.N)
        if config.model.model_type == "supervised":
            check_labels(one)
        count = group_count(config, len(one))
        one.group(config.model.gridsize, count, seed=0, **grouping_settings(config))


def run_cdi_example_torch(  # noqa: PLR0913 - the reference's signature
    train: Scan,
    test: Scan | None,
    config: TrainingConfig,
    flip_x: bool = False,
    flip_y: bool = False,
    transpose: bool = False,
    M: int = 20,  # noqa: N803 - the reference's name
    do_stitching: bool = False,
    execution_config: ExecutionConfig | None = None,
    overrides: dict[str, Any] | None = None,
) -> tuple[np.ndarray | None, np.ndarray | None, dict[str, Any]]:
    """Train on a scan; optionally stitch the test scan (the training scan without one).

    Args:
        train: training scan.
        test: scan for validation and stitching.
        config: canonical configuration.
        flip_x: mirror the reconstruction's columns.
        flip_y: mirror its rows.
        transpose: swap its axes.
        M: side of the central part of each patch that is stitched.
        do_stitching: whether to reconstruct.
        execution_config: hardware, logging, checkpoints.
        overrides: canonical training fields to replace; ``overwrite`` removes the training in the
            folder first, without it an unfinished one is continued and a finished one loaded.

    Returns:
        Amplitude and phase (None without stitching) and the results: ``history``, ``models``,
        containers, ``intensity_scale``, and after stitching ``obj_tensor_full``,
        ``global_offsets``, ``recon_amp``, ``recon_phase``.
    """
    overrides = dict(overrides or {})
    overrides.pop("resume", None)  # always done
    overwrite = bool(overrides.pop("overwrite", False))
    for name, value in overrides.items():
        if not hasattr(config, name):
            raise ValueError(f"overrides: unknown field {name!r} of TrainingConfig")
        setattr(config, name, value)
    scan, held = as_raw(train, "train"), None if test is None else as_raw(test, "test")
    execution, flips = execution_config or ExecutionConfig(), (flip_x, flip_y, transpose)
    with trained_cdi(scan, held, config, execution, overwrite=overwrite) as cdi:
        results = cdi.finish(M if do_stitching else None, flips)
    return results.get("recon_amp"), results.get("recon_phase"), results


@dataclass
class TrainedCdi:
    """A trained model within its run's record.

    Attributes:
        model: trained, on the CPU.
        record: of its run.
        history: of its training.
        scan: the frames that it was trained on.
        held: scan for validation and stitching, if any.
        config: of the training.
        batch_size: groups per pass of the stitching.
    """

    model: PtychoPINN_Lightning
    record: Recorder
    history: History
    scan: RawDataTorch
    held: RawDataTorch | None
    config: TrainingConfig
    batch_size: int | None

    def finish(
        self, side: int | None, flips: tuple[bool, bool, bool] = (False, False, False)
    ) -> dict[str, Any]:
        """Save the bundle and return the results of ``run_cdi_example_torch``.

        Args:
            side: of the central part of each patch that is stitched; None stitches nothing.
            flips: as ``oriented`` takes them.
        """
        model, gridsize = self.model, self.config.model.gridsize
        scale = float(torch.exp(model.net.log_scale.detach()))
        params.cfg["intensity_scale"] = scale
        losses = {"train_loss": self.history.train_loss, "val_loss": self.history.val_loss}
        results: dict[str, Any] = {
            "history": {"loss": self.history.train_loss, **losses},
            "models": {"autoencoder": model, "diffraction_to_obj": model},
            "train_container": LazyContainer(self.scan, gridsize),
            "test_container": None if self.held is None else LazyContainer(self.held, gridsize),
            "intensity_scale": scale,
            "backend": "pytorch",
        }
        if side is not None:
            model.inference_config.middle_trim = side
            target = self.scan if self.held is None else self.held
            found = reconstruct(model, target, batch_size=self.batch_size)
            obj = oriented(found.object, *flips)
            results |= {
                "obj_tensor_full": obj,
                "global_offsets": target.coords,
                "recon_amp": np.abs(obj),
                "recon_phase": np.angle(obj),
                "reconstruction": found,
            }
        self.record.notes["epochs"] = self.config.nepochs
        save_bundle(model, self.config.output_dir, dict(params.cfg))
        return results


@contextlib.contextmanager
def trained_cdi(
    scan: RawDataTorch,
    held: RawDataTorch | None,
    config: TrainingConfig,
    execution: ExecutionConfig,
    **options: Any,
) -> Iterator[TrainedCdi]:
    """Train on a scan as a canonical configuration says; within, the run's record is still open.

    Args:
        scan: training scan.
        held: scan for validation, if any.
        config: canonical configuration.
        execution: hardware, logging, checkpoints.
        options: more of ``train.trained``.
    """
    params.update_legacy_dict(params.cfg, config)
    model, data = build_model(config, execution), training_data(config, scan, held)
    with trained(model, data, Path(config.output_dir), execution, **options) as (record, history):
        batch_size = execution.inference_batch_size
        yield TrainedCdi(model, record, history, data.scan, held, config, batch_size)


def group_count(config: TrainingConfig, frames: int) -> int:
    """Groups to train on: ``n_groups``, and no more than the frames unless oversampling."""
    wanted = frames if config.n_groups is None else config.n_groups
    return wanted if config.enable_oversampling else min(wanted, frames)


def oriented(obj: np.ndarray, flip_x: bool, flip_y: bool, transpose: bool) -> np.ndarray:
    """Transpose, then mirror columns and rows."""
    obj = obj.T if transpose else obj
    return obj[:: -1 if flip_y else 1, :: -1 if flip_x else 1]


class LazyContainer:
    """The reference's container, built when somebody reads it (frames are not copied before)."""

    def __init__(self, scan: RawDataTorch, gridsize: int) -> None:
        self._scan, self._gridsize = scan, gridsize
        self._built: PtychoDataContainerTorch | None = None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if self._built is None:
            K = max(4, self._gridsize**2)  # noqa: N806 - the field's name
            self._built = PtychoDataContainerTorch.from_raw(
                self._scan, gridsize=self._gridsize, K=K, seed=0
            )
        return getattr(self._built, name)


class BackendMissingError(RuntimeError, ImportError):
    """The chosen backend's package is not installed."""


#: The package that each backend needs.
NEEDED = {"pytorch": "torch", "tensorflow": "ptycho"}


def check_backend(name: str) -> None:
    """Refuse a backend that is unknown or not installed.

    Raises:
        ValueError: unknown.
        BackendMissingError: its package is not installed.
    """
    one_of("TrainingConfig.backend", name, tuple(NEEDED))
    if importlib.util.find_spec(NEEDED[name]) is None:
        other = next(backend for backend in NEEDED if backend != name)
        raise BackendMissingError(
            f"backend {name}: its package {NEEDED[name]!r} is not installed; install it, or set "
            f"backend to {other}"
        )


def run_cdi_example_with_backend(
    train: Scan, test: Scan | None, config: TrainingConfig, **settings: Any
) -> tuple[Any, Any, dict[str, Any]]:
    """Route by ``config.backend``.

    Raises:
        ValueError: unknown backend.
        BackendMissingError: the backend's package is not installed; a ``RuntimeError``.
    """
    params.update_legacy_dict(params.cfg, config)
    check_backend(config.backend)
    if config.backend == "pytorch":
        amplitude, phase, results = run_cdi_example_torch(train, test, config, **settings)
    else:
        components = importlib.import_module("ptycho.workflows.components")
        settings.pop("execution_config", None)
        settings.pop("overrides", None)
        amplitude, phase, results = components.run_cdi_example(train, test, config, **settings)
    results["backend"] = config.backend
    return amplitude, phase, results


def load_inference_bundle(
    folder: str | Path, *, trust_pickle: bool = False
) -> tuple[Any, dict[str, Any]]:
    """Load a bundle and restore its flat dictionary, the trained intensity scale included."""
    from ptycho_torch.recon.persistence import load_bundle

    model, stored = load_bundle(folder, trust_pickle=trust_pickle)
    params.cfg.update(stored)
    return model, stored
