"""The torch-side configuration, with every keyword that Ptychodus 1.7.0 passes.

The classes are plain, mutable and picklable, import neither torch nor CUDA, and check nothing in
their constructors; ``validate()`` does so at use. Renamed keywords are accepted in both
spellings (``warmup_epochs`` and ``lr_warmup_epochs``), and both are readable attributes.
Fields that select parts this package does not build are listed in ``UNUSED``; a value other than
their default is logged once at use.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from trainrig.errors import one_of, require

logger = logging.getLogger(__name__)

TORCH_NPHOTONS = 1e5  # the torch-side default; the canonical one is 1e9, see config_bridge
ACTIVATIONS = ("silu", "SiLU", "swish", "sigmoid", "softplus", "relu")


def _forwarded(name: str) -> property:
    def read(self: Any) -> Any:
        return getattr(self, name)

    def write(self: Any, value: Any) -> None:
        setattr(self, name, value)

    return property(read, write)


def _aliased(**pairs: str) -> Callable[[type], type]:
    """Accept ``alias=value`` for a field in the constructor and as an attribute."""

    def decorate(cls: Any) -> Any:
        plain_init = cls.__init__

        @functools.wraps(plain_init)
        def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807 - replaces it
            for alias, name in pairs.items():
                if alias in kwargs:
                    if name in kwargs:
                        where = f"{cls.__name__}: {alias!r} and {name!r}"
                        raise TypeError(f"{where} are one setting; pass one of them")
                    kwargs[name] = kwargs.pop(alias)
            plain_init(self, *args, **kwargs)

        cls.__init__ = __init__
        for alias, name in pairs.items():
            setattr(cls, alias, _forwarded(name))
        cls.ALIASES = dict(pairs)
        return cls

    return decorate


def warn_unused(config: Any) -> list[str]:
    """Log the fields of ``config`` that are set but that this package does not build."""
    chosen = []
    for item in fields(config):
        if (
            item.name in getattr(config, "UNUSED", ())
            and getattr(config, item.name) != item.default
        ):
            chosen.append(item.name)
    if chosen:
        logger.warning("%s: not built here, ignored: %s", type(config).__name__, ", ".join(chosen))
    return chosen


@dataclass
class DataConfig:
    """Frames, grouping and normalisation (distances in object pixels)."""

    nphotons: float = TORCH_NPHOTONS
    N: int = 64
    C: int = 4
    K: int = 6
    K_quadrant: int = 30
    n_subsample: int = 7
    subsample_seed: int | None = None
    grid_size: tuple[int, int] = (2, 2)
    neighbor_function: str = "Nearest"
    min_neighbor_distance: float = 0.0
    max_neighbor_distance: float = 3.0
    scan_pattern: str = "Isotropic"
    normalize: str = "Batch"
    probe_scale: float = 4.0
    probe_normalize: bool = True
    probe_ramp_removal: bool = False
    data_scaling: str = "Parseval"
    phase_subtraction: bool = True
    x_bounds: tuple[float, float] = (0.1, 0.9)
    y_bounds: tuple[float, float] = (0.1, 0.9)

    UNUSED = ("K_quadrant", "scan_pattern", "x_bounds", "y_bounds", "probe_ramp_removal")

    def validate(self) -> None:
        """Raise ``ValueError`` on the first value that cannot be used."""
        grid = tuple(self.grid_size)
        require(len(grid) == 2 and grid[0] == grid[1] >= 1, "DataConfig.grid_size", grid, "square")
        require(self.grid_size[0] ** 2 == self.C, "DataConfig.C", self.C, "C must be grid_size²")
        require(self.probe_scale > 0, "DataConfig.probe_scale", self.probe_scale, "positive number")
        one_of("DataConfig.normalize", self.normalize, ("Batch", "Group"))
        one_of("DataConfig.data_scaling", self.data_scaling, ("Parseval", "Max"))


@dataclass
class ModelConfig:
    """Network and physics switches of the torch side."""

    mode: str = "Unsupervised"
    C_model: int = 4
    C_forward: int = 4
    n_filters_scale: int = 2
    amp_activation: str = "silu"
    batch_norm: bool = False
    probe_mask: Any = None
    probe_mask_sigma: float = 1.0
    probe_mask_diameter: float | None = None
    edge_pad: int = 10
    decoder_last_c_outer_fraction: float = 0.125
    decoder_last_amp_channels: int = 1
    eca_encoder: bool = False
    eca_decoder: bool = False
    cbam_encoder: bool = True
    cbam_bottleneck: bool = False
    cbam_decoder: bool = False
    spatial_decoder: bool = False
    decoder_spatial_kernel: int = 7
    object_big: bool = True
    probe_big: bool = True
    pad_object: bool = True
    offset: int = 6
    max_position_jitter: int = 10
    intensity_scale_trainable: bool = False
    intensity_scale: float = 10000.0
    num_datasets: int = 1
    loss_function: str = "Poisson"
    amp_loss: str | None = None
    phase_loss: str | None = None
    amp_loss_coeff: float = 1.0
    phase_loss_coeff: float = 1.0
    probe_reference_coeff: float = 0.0
    amplitude_variance_loss: bool = False
    amplitude_variance_coeff: float = 0.01
    gaussian_smoothing_sigma: float = 0.0
    use_shared_decoder: bool = False
    probe_modes: int = 1
    probe_trainable: bool = False

    UNUSED = (
        "batch_norm",
        "eca_encoder",
        "eca_decoder",
        "cbam_bottleneck",
        "cbam_decoder",
        "spatial_decoder",
        "use_shared_decoder",
        "amp_loss",
        "phase_loss",
        "probe_reference_coeff",
        "amplitude_variance_loss",
    )

    def validate(self) -> None:
        """Raise ``ValueError`` on the first value that cannot be used."""
        one_of("ModelConfig.mode", self.mode, ("Unsupervised", "Supervised"))
        one_of("ModelConfig.amp_activation", self.amp_activation, ACTIVATIONS)
        one_of("ModelConfig.loss_function", self.loss_function, ("Poisson", "MAE", "MSE"))
        require(
            self.n_filters_scale >= 1, "ModelConfig.n_filters_scale", self.n_filters_scale, "≥ 1"
        )
        require(self.C_model >= 1, "ModelConfig.C_model", self.C_model, "give 1 or more")


@_aliased(lr_warmup_epochs="warmup_epochs", lr_min_ratio="min_lr_ratio")
@dataclass
class TrainingConfig:
    """Optimisation and hardware of the torch side."""

    nll: bool = True
    device: str = "cuda"
    strategy: str | None = None
    n_devices: int = 1
    framework: str = "Lightning"
    orchestrator: str = "Lightning"
    learning_rate: float = 1e-3
    epochs: int = 50
    batch_size: int = 16
    epochs_fine_tune: int = 0
    fine_tune_gamma: float = 0.1
    scheduler: str = "Default"
    num_workers: int = 4
    accum_steps: int = 1
    gradient_clip_val: float | None = None
    warmup_epochs: int = 0
    min_lr_ratio: float = 0.1
    notes: str = ""
    model_name: str = "PtychoPINNv2"
    enable_staged_finetuning: bool = False
    finetune_stage1_epochs: int = 7
    finetune_stage2_epochs: int = 7
    finetune_stage3_epochs: int = 5
    finetune_stage1_lr_decoder: float = 0.1
    finetune_stage2_lr_encoder_top: float = 0.01
    finetune_stage2_lr_decoder: float = 0.05
    finetune_stage2_lr_phase_head: float = 0.1
    finetune_stage3_lr_encoder_bottom: float = 0.005
    finetune_stage3_lr_encoder_top: float = 0.01
    finetune_stage3_lr_decoder: float = 0.02
    finetune_stage3_lr_phase_head: float = 0.05
    finetune_skip_stage3: bool = True
    finetune_early_stop_patience: int = 3
    finetune_val_split: float = 0.05
    train_data_file: str | None = None
    test_data_file: str | None = None
    output_dir: str = "training_outputs"
    n_groups: int | None = None
    seed: int = 42
    mae_weight: float = 0.0
    nll_weight: float = 1.0
    gradient_clip_algorithm: str = "norm"
    optimizer: str = "adam"
    momentum: float = 0.9
    weight_decay: float = 0.0
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    plateau_factor: float = 0.5
    plateau_patience: int = 2
    plateau_min_lr: float = 5e-5
    plateau_threshold: float = 0.0
    overlap_frames: int = 0  # frames whose merged object is diffracted; 0 takes each frame alone

    UNUSED = ("epochs_fine_tune", "enable_staged_finetuning")

    def validate(self) -> None:
        """Raise ``ValueError`` on the first value that cannot be used."""
        require(self.epochs >= 1, "TrainingConfig.epochs", self.epochs, "give 1 or more")
        require(self.batch_size >= 1, "TrainingConfig.batch_size", self.batch_size, "≥ 1")
        require(self.learning_rate > 0, "TrainingConfig.learning_rate", self.learning_rate, "> 0")
        choices = ("Default", "Exponential", "WarmupCosine", "Cosine", "ReduceLROnPlateau")
        one_of("TrainingConfig.scheduler", self.scheduler, choices)
        require(self.accum_steps >= 1, "TrainingConfig.accum_steps", self.accum_steps, "≥ 1")
        require(
            0 <= self.min_lr_ratio <= 1, "TrainingConfig.min_lr_ratio", self.min_lr_ratio, "[0, 1]"
        )


@dataclass
class InferenceConfig:
    """Stitching of the torch side (pixels)."""

    middle_trim: int = 32
    batch_size: int = 1000
    experiment_number: int = 0
    pad_eval: bool = True
    window: int = 20
    patch_weighting: str = "probe"
    model_path: str | None = None
    test_data_file: str | None = None
    n_groups: int | None = None
    refine_epochs: int = 0

    UNUSED = ("experiment_number",)

    def validate(self) -> None:
        """Raise ``ValueError`` on the first value that cannot be used."""
        one_of("InferenceConfig.patch_weighting", self.patch_weighting, ("probe", "uniform"))
        require(self.batch_size >= 1, "InferenceConfig.batch_size", self.batch_size, "≥ 1")
        require(self.middle_trim >= 1, "InferenceConfig.middle_trim", self.middle_trim, "≥ 1")


@dataclass
class DatagenConfig:
    """Placeholder that Ptychodus builds without arguments; simulation has its own flags."""
