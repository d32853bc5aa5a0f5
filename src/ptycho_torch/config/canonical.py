"""The canonical configuration: model, training and inference, shared by every backend.

The dataclasses are mutable and their constructors accept anything, because Ptychodus builds them
with placeholder values (``N=0``) and assigns the real ones later. ``validate()`` is called where
they are used. Field names and defaults: PtychoPINN's published configuration schema.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from pathlib import Path

from trainrig.errors import one_of, require

SIZES = (64, 128, 256)
MODEL_TYPES = ("pinn", "supervised")
AMP_ACTIVATIONS = ("sigmoid", "swish", "softplus", "relu")
ARCHITECTURES = ("cnn",)
BACKENDS = ("tensorflow", "pytorch")
SCHEDULERS = ("Default", "Exponential", "WarmupCosine", "ReduceLROnPlateau")
CLIP_ALGORITHMS = ("norm", "value", "agc")
LOSS_MODES = ("poisson", "mae", "mse")


@dataclass
class ModelConfig:
    """Network and physics switches (lengths in pixels)."""

    N: int = 64
    gridsize: int = 1
    n_filters_scale: int = 2
    model_type: str = "pinn"
    architecture: str = "cnn"
    fno_modes: int = 12
    fno_width: int = 32
    fno_blocks: int = 4
    fno_cnn_blocks: int = 2
    learned_input_channels: int = 1
    max_hidden_channels: int | None = None
    resnet_width: int | None = None
    fno_input_transform: str = "none"
    generator_output_mode: str = "real_imag"
    amp_activation: str = "sigmoid"
    object_big: bool = True
    probe_big: bool = True
    probe_mask: bool = False
    probe_mask_sigma: float = 1.0
    probe_mask_diameter: float | None = None
    pad_object: bool = True
    probe_scale: float = 4.0
    gaussian_smoothing_sigma: float = 0.0

    def validate(self) -> None:
        """Raise ``ValueError`` on the first value outside its range."""
        one_of("ModelConfig.N", self.N, SIZES)
        require(self.gridsize >= 1, "ModelConfig.gridsize", self.gridsize, "give 1 or more")
        require(
            self.n_filters_scale >= 1, "ModelConfig.n_filters_scale", self.n_filters_scale, "≥ 1"
        )
        one_of("ModelConfig.model_type", self.model_type, MODEL_TYPES)
        one_of("ModelConfig.architecture", self.architecture, ARCHITECTURES)
        one_of("ModelConfig.amp_activation", self.amp_activation, AMP_ACTIVATIONS)
        require(
            self.probe_mask_sigma >= 0, "ModelConfig.probe_mask_sigma", self.probe_mask_sigma, "≥ 0"
        )
        require(
            self.probe_mask_diameter is None or self.probe_mask_diameter > 0,
            "ModelConfig.probe_mask_diameter",
            self.probe_mask_diameter,
            "give a positive number of pixels or None",
        )
        require(
            self.probe_scale > 0,
            "ModelConfig.probe_scale",
            self.probe_scale,
            "give a positive number",
        )
        sigma = self.gaussian_smoothing_sigma
        require(sigma >= 0, "ModelConfig.gaussian_smoothing_sigma", sigma, "≥ 0")


@dataclass
class TrainingConfig:
    """Everything one training needs; ``nphotons`` is photons per frame."""

    model: ModelConfig
    train_data_file: Path | None = None
    test_data_file: Path | None = None
    batch_size: int = 16
    nepochs: int = 50
    mae_weight: float = 0.0
    nll_weight: float = 1.0
    realspace_mae_weight: float = 0.0
    realspace_weight: float = 0.0
    nphotons: float = 1e9
    n_groups: int | None = None
    n_images: int | None = None
    n_subsample: int | None = None
    subsample_seed: int | None = None
    neighbor_count: int = 4
    enable_oversampling: bool = False
    neighbor_pool_size: int | None = None
    positions_provided: bool = True
    probe_trainable: bool = False
    intensity_scale_trainable: bool = True
    output_dir: Path = Path("training_outputs")
    sequential_sampling: bool = False
    backend: str = "tensorflow"
    torch_loss_mode: str = "poisson"
    torch_mae_pred_l2_match_target: bool = False
    gradient_clip_val: float | None = None
    gradient_clip_algorithm: str = "norm"
    optimizer: str = "adam"
    momentum: float = 0.9
    weight_decay: float = 0.0
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    scheduler: str = "Default"
    lr_warmup_epochs: int = 0
    lr_min_ratio: float = 0.1
    plateau_factor: float = 0.5
    plateau_patience: int = 2
    plateau_min_lr: float = 5e-5
    plateau_threshold: float = 0.0

    def __post_init__(self) -> None:
        """Resolve the deprecated group count; nothing is validated here."""
        _resolve_n_images(self)
        if self.n_groups is None:
            self.n_groups = 512

    def validate(self) -> None:
        """Raise ``ValueError`` on the first value outside its range."""
        self.model.validate()
        size = self.batch_size
        require(
            size > 0 and size & (size - 1) == 0,
            "TrainingConfig.batch_size",
            size,
            "use a power of two",
        )
        require(self.nepochs > 0, "TrainingConfig.nepochs", self.nepochs, "give 1 or more")
        for name in ("mae_weight", "nll_weight"):
            value = getattr(self, name)
            require(0 <= value <= 1, f"TrainingConfig.{name}", value, "give a number in [0, 1]")
        if self.realspace_mae_weight > 0:
            require(
                self.realspace_weight > 0,
                "TrainingConfig.realspace_weight",
                self.realspace_weight,
                "realspace_mae_weight > 0 needs realspace_weight > 0",
            )
        require(
            self.nphotons > 0, "TrainingConfig.nphotons", self.nphotons, "give a positive number"
        )
        require(
            self.neighbor_count >= 0, "TrainingConfig.neighbor_count", self.neighbor_count, "≥ 0"
        )
        groups = self.n_groups
        require(groups is None or groups >= 1, "TrainingConfig.n_groups", groups, "give 1 or more")
        one_of("TrainingConfig.backend", self.backend, BACKENDS)
        one_of("TrainingConfig.torch_loss_mode", self.torch_loss_mode, LOSS_MODES)
        _check_optimizer(self.optimizer)
        one_of("TrainingConfig.scheduler", self.scheduler, SCHEDULERS)
        one_of(
            "TrainingConfig.gradient_clip_algorithm", self.gradient_clip_algorithm, CLIP_ALGORITHMS
        )
        clip = self.gradient_clip_val
        require(clip is None or clip > 0, "TrainingConfig.gradient_clip_val", clip, "> 0 or None")


@dataclass
class InferenceConfig:
    """What one reconstruction needs; ``n_groups`` None means every group."""

    model: ModelConfig
    model_path: Path = field(default_factory=Path)
    test_data_file: Path = field(default_factory=Path)
    n_groups: int | None = None
    n_images: int | None = None
    n_subsample: int | None = None
    subsample_seed: int | None = None
    neighbor_count: int = 4
    enable_oversampling: bool = False
    neighbor_pool_size: int | None = None
    debug: bool = False
    output_dir: Path = Path("inference_outputs")
    backend: str = "tensorflow"

    def __post_init__(self) -> None:
        """Resolve the deprecated group count; nothing is validated here."""
        _resolve_n_images(self)

    def validate(self) -> None:
        """Raise on the first value outside its range."""
        self.model.validate()
        one_of("InferenceConfig.backend", self.backend, BACKENDS)
        if not Path(self.test_data_file).is_file():
            raise FileNotFoundError(
                f"InferenceConfig.test_data_file: {str(self.test_data_file)!r} does not exist; "
                "give a canonical NPZ file"
            )


def _check_optimizer(name: str) -> None:
    from trainrig.optim import resolve_optimizer  # torch is imported only where a run begins

    try:
        resolve_optimizer(name)
    except KeyError as error:
        raise ValueError(f"TrainingConfig.optimizer: {error.args[0]}") from None
    except ValueError as error:
        raise ValueError(f"TrainingConfig.optimizer: {error}") from None


def _resolve_n_images(config: TrainingConfig | InferenceConfig) -> None:
    if config.n_images is None:
        return
    warnings.warn("n_images is deprecated; use n_groups", DeprecationWarning, stacklevel=4)
    if config.n_groups is None:
        config.n_groups = config.n_images
