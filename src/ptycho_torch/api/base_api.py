"""The names and call forms that Ptychodus 1.7.0 uses, over this package's own parts.

Ptychodus hard-wires them: a configuration manager, a data loader, a model holder, a trainer and an
inference engine. Training takes a folder (NPZ scans, or Ptychodus's own pair of files); inference
takes arrays, counts and (y, x) positions in pixels of the input object.
"""

from __future__ import annotations

import enum
import logging
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ptycho_torch.config.execution import ExecutionConfig
from ptycho_torch.config_params import (
    DataConfig,
    DatagenConfig,
    InferenceConfig,
    ModelConfig,
    TrainingConfig,
)
from ptycho_torch.model import PtychoPINN_Lightning
from ptycho_torch.physics.canvas import Grid
from ptycho_torch.raw_data import RawDataTorch
from ptycho_torch.train.inputs import TrainingData
from ptycho_torch.train.train import EpochHooks, trained
from trainrig.seeding import PortableDraws, derive_seed, set_seed

logger = logging.getLogger(__name__)

TEST_FILES = ("test",)  # NPZ whose name starts so validates instead of training


@dataclass
class ConfigManager:
    """The five configurations together."""

    data_config: DataConfig = field(default_factory=DataConfig)
    model_config: ModelConfig = field(default_factory=ModelConfig)
    training_config: TrainingConfig = field(default_factory=TrainingConfig)
    inference_config: InferenceConfig = field(default_factory=InferenceConfig)
    datagen_config: DatagenConfig = field(default_factory=DatagenConfig)

    @classmethod
    def from_loaded_model(cls, model: PtychoModel) -> ConfigManager:
        """The configurations that a loaded model carries."""
        return cls(
            model.data_config, model.model_config, model.training_config, model.inference_config
        )

    def validate_arch_compatibility(self, model: PtychoModel) -> None:
        """Check that the loaded network has the configured size.

        Raises:
            ValueError: frame side or channels differ.
        """
        if model.model is None:
            raise ValueError("PtychoModel: no network is loaded; load a checkpoint first")
        loaded = model.model.data_config
        for name in ("N", "C"):
            have, want = getattr(loaded, name), getattr(self.data_config, name)
            if have != want:
                raise ValueError(f"checkpoint: {name} = {have}, the configuration says {want}")


class DataloaderFormats(enum.Enum):
    """How data reach the trainer; one way exists."""

    LIGHTNING = "lightning_only_module"


def find_scans(folder: Path) -> tuple[RawDataTorch, RawDataTorch | None]:
    """Training and validation scans in a folder.

    Ptychodus's pair of files wins; otherwise the NPZ files in order of name, one whose name begins
    with ``test`` being for validation.

    Raises:
        FileNotFoundError: neither is there.
        ValueError: several training files.
    """
    from ptycho_torch.data.product_files import DIFFRACTION, PRODUCT

    if (folder / DIFFRACTION).is_file() and (folder / PRODUCT).is_file():
        return RawDataTorch.from_file(folder), None
    files = sorted(folder.glob("*.npz"))
    test = [path for path in files if path.stem.startswith(TEST_FILES)]
    train = [path for path in files if path not in test]
    if not train:
        raise FileNotFoundError(
            f"{folder}: neither {DIFFRACTION} with {PRODUCT} nor an NPZ scan; export training data"
        )
    if len(train) > 1:
        names = ", ".join(path.name for path in train)
        raise ValueError(f"{folder}: several training scans ({names}); keep one per folder")
    return RawDataTorch.from_file(train[0]), RawDataTorch.from_file(test[0]) if test else None


class PtychoDataLoader:
    """Scans from a folder (training) or arrays (inference)."""

    def __init__(
        self,
        data_dir: str | Path,
        config_manager: ConfigManager,
        data_format: DataloaderFormats = DataloaderFormats.LIGHTNING,
        output_dir: str | Path | None = None,
    ) -> None:
        self.config_manager, self.data_format = config_manager, data_format
        self.scan, self.validation = find_scans(Path(data_dir))
        root = Path(data_dir if output_dir is None else output_dir)
        self.output_dir: Path | None = root / f"run_{time.strftime('%Y%m%d_%H%M%S')}"

    @classmethod
    def from_np(
        cls,
        diff_patterns: np.ndarray,
        probe: np.ndarray,
        positions: np.ndarray,
        config_manager: ConfigManager,
    ) -> PtychoDataLoader:
        """Arrays of one scan.

        Args:
            diff_patterns: (n, N, N) counts.
            probe: (m, N, N) complex.
            positions: (n, 2) pixels, **y first**.
            config_manager: configurations of the loaded model.
        """
        loader = cls.__new__(cls)
        loader.config_manager, loader.data_format = config_manager, DataloaderFormats.LIGHTNING
        positions = np.asarray(positions, dtype=np.float64)
        arrays = {
            "xcoords": positions[:, 1],
            "ycoords": positions[:, 0],
            "diff3d": np.asarray(diff_patterns),
            "probeGuess": np.asarray(probe),
            "measurement_domain": np.array("counts"),
        }
        loader.scan = RawDataTorch.from_arrays(arrays, "Ptychodus")
        loader.validation, loader.output_dir = None, None
        return loader


@dataclass
class PtychoModel:
    """A network with its four configurations; ``model`` may be set after construction."""

    model_config: ModelConfig
    data_config: DataConfig
    training_config: TrainingConfig
    inference_config: InferenceConfig
    model: PtychoPINN_Lightning | None = None

    @staticmethod
    def _extract_configs_from_checkpoint(
        path: str,
    ) -> tuple[DataConfig, ModelConfig, TrainingConfig, InferenceConfig]:
        model = PtychoPINN_Lightning.load_from_checkpoint(path)
        return (
            model.data_config,
            model.model_config,
            model.training_config,
            model.inference_config,
        )

    @classmethod
    def _new_model(
        cls, model: type[PtychoPINN_Lightning], config_manager: ConfigManager
    ) -> PtychoModel:
        m = config_manager
        set_seed(derive_seed("weights", m.training_config.seed) % 2**32)
        with PortableDraws():
            net = model(m.model_config, m.data_config, m.training_config, m.inference_config)
        return cls(m.model_config, m.data_config, m.training_config, m.inference_config, net)


def _present(model: PtychoPINN_Lightning | None) -> PtychoPINN_Lightning:
    if model is None:
        raise ValueError("PtychoModel.model: None; give a network before training or inference")
    return model


class Trainer:
    """Training of one model on one loader's scan; ``_trainer`` takes Lightning's callbacks."""

    def __init__(
        self, model: PtychoModel, dataloader: PtychoDataLoader, execution: ExecutionConfig
    ) -> None:
        self.model, self.dataloader, self.execution = model, dataloader, execution
        self._trainer = EpochHooks()

    @classmethod
    def _from_lightning(
        cls,
        model: PtychoModel,
        dataloader: PtychoDataLoader,
        orchestration: str = "lightning",
        config_manager: ConfigManager | None = None,
    ) -> Trainer:
        training = (config_manager or ConfigManager.from_loaded_model(model)).training_config
        execution = ExecutionConfig(
            accelerator={"cuda": "cuda", "gpu": "gpu"}.get(training.device, "cpu"),
            devices=max(training.n_devices, 1),
            accum_steps=training.accum_steps,
            learning_rate=training.learning_rate,
            seed=training.seed,
        )
        if execution.resolved_accelerator() == "cpu":
            execution.accelerator, execution.devices = "cpu", 1
        return cls(model, dataloader, execution)

    def train(self, orchestration: str = "lightning", experiment_name: str = "") -> None:
        """Run the training; the best and last checkpoints lie below the loader's output folder."""
        loader, model = self.dataloader, _present(self.model.model)
        assert loader.output_dir is not None  # a folder was read
        data = TrainingData(scan=loader.scan, validation=loader.validation)
        with trained(model, data, loader.output_dir, self.execution, hooks=self._trainer):
            pass


class InferenceEngine:
    """Network inference and stitching onto the object's place."""

    def __init__(self, config_manager: ConfigManager, ptycho_model: PtychoModel) -> None:
        self.config_manager, self.model = config_manager, ptycho_model.model

    def predict_and_stitch(self, loader: PtychoDataLoader) -> np.ndarray:
        """(H, W) complex64, centred on the positions' bounding box, 1+0i where nothing was seen.

        ``refine_epochs`` of the model's inference configuration adds an iterative refinement.
        """
        import torch

        from ptycho_torch.recon.hybrid import hybrid
        from ptycho_torch.recon.inference import reconstruct
        from ptycho_torch.recon.refine import RefineSettings

        scan = loader.scan
        device = "cuda" if torch.cuda.is_available() else "cpu"
        grid = Grid.around(scan.coords, scan.N)
        found = reconstruct(_present(self.model), scan, grid=grid, device=device)
        epochs = self.config_manager.inference_config.refine_epochs
        if epochs:
            found, _ = hybrid(scan, RefineSettings(epochs=epochs), network=found, device=device)
        return np.asarray(found.object)
