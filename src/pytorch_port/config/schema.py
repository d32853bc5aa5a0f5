"""The configuration tree of an ICL run, under the reference's key names; ``config_files`` reads it.

Defaults are those of the reference's ``images_all_exemplars`` configuration.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from trainrig.config import InitConfig

ExampleType = Literal["omniglot", "symbolic"]
Labeling = str


@dataclass(frozen=True, kw_only=True, slots=True)
class GeneratorConfig:
    """Class partition and class frequencies."""

    n_rare_classes: int = 1603
    n_common_classes: int = 10
    n_holdout_classes: int = 10
    zipf_exponent: float = 0.0
    use_zipf_for_common_rare: bool = False
    noise_scale: float = 0.0
    preserve_ordering_every_n: int | None = None

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("n_rare_classes", "n_common_classes", "n_holdout_classes"):
            _at_least(f"data.generator_config.{name}", getattr(self, name), 0)
        _at_least("data.generator_config.zipf_exponent", self.zipf_exponent, 0)
        _at_least("data.generator_config.noise_scale", self.noise_scale, 0)

    @property
    def n_classes(self) -> int:
        """All partitioned classes."""
        return self.n_rare_classes + self.n_common_classes + self.n_holdout_classes


@dataclass(frozen=True, kw_only=True, slots=True)
class OmniglotConfig:
    """Which drawings take part."""

    omniglot_split: Literal["all", "train", "test"] = "all"
    exemplars: Literal["all", "single", "separated"] = "all"
    augment_images: bool = False
    n_to_keep: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class SymbolicConfig:
    """The symbolic set: class = example = an integer below ``dataset_size``."""

    dataset_size: int = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class SeqConfig:
    """Composition of training sequences (icl reference, ``seq_config``)."""

    seq_len: int = 9
    fs_shots: int = 4
    bursty_shots: int = 3
    ways: int = 2
    p_bursty: float = 0.9
    p_bursty_common: float = 0.0
    p_bursty_zipfian: float = 1.0
    p_fewshot: float = 0.1
    non_bursty_type: Literal["zipfian", "common_uniform", "common_no_support"] = "zipfian"
    labeling_common: Labeling = "ordered"
    labeling_rare: Labeling = "ordered"
    randomly_generate_rare: bool = False
    grouped: bool = False

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("p_bursty", "p_bursty_common", "p_bursty_zipfian", "p_fewshot"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ValueError(f"data.seq_config.{name} is {value}; a probability in [0, 1]")
        for name in ("seq_len", "fs_shots", "bursty_shots", "ways"):
            _at_least(f"data.seq_config.{name}", getattr(self, name), 1)
        shortest = self.bursty_shots * self.ways + 1
        if self.seq_len < shortest:
            raise ValueError(
                f"data.seq_config.seq_len is {self.seq_len}; at least bursty_shots * ways + 1 = "
                f"{shortest} is needed"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig:
    """What the sequences are made of and who draws them.

    ``source``: ``omniglot`` reads its zips or folders with our own reader, ``torchvision`` and
    ``tfds`` through these libraries, ``synthetic`` draws glyphs, ``auto`` is Omniglot where it is
    found and glyphs elsewhere; any other name is looked up in ``trainrig.data.catalogue``.
    ``sampler``: ``vectorized`` draws on the CPU, the same sequences for every device; ``device``
    draws alike where the model is; ``exact`` is the reference's generator, the oracle.
    """

    train_seqs: str = "bursty"
    example_type: ExampleType = "omniglot"
    source: str = "omniglot"
    sampler: Literal["vectorized", "device", "exact"] = "vectorized"
    generator_config: GeneratorConfig = field(default_factory=GeneratorConfig)
    omniglot_config: OmniglotConfig = field(default_factory=OmniglotConfig)
    symbolic_config: SymbolicConfig = field(default_factory=SymbolicConfig)
    seq_config: SeqConfig = field(default_factory=SeqConfig)

    @property
    def n_items(self) -> int:
        """Items per training sequence; few-shot and mixed sequences set their own length."""
        if self.train_seqs.startswith("fewshot") or self.train_seqs == "mixed":
            return self.n_fewshot_items
        return self.seq_config.seq_len

    @property
    def n_fewshot_items(self) -> int:
        """Items per few-shot sequence, query included."""
        return self.seq_config.fs_shots * self.seq_config.ways + 1


@dataclass(frozen=True, kw_only=True, slots=True)
class PreprocConfig:
    """Image preparation: ``downsample`` gives 28 px; grey is repeated over ``image_channels``."""

    downsample: bool = False
    image_channels: int = 1

    def __post_init__(self) -> None:
        """Check the ranges."""
        _at_least("preproc.image_channels", self.image_channels, 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimizerConfig:
    """Optimizer, schedule (warm-up, then inverse square root) and weight decay.

    ``l2_mode`` says what ``weight_decay`` λ does: ``decoupled`` shrinks weights by lr·λ beside the
    update (AdamW); ``sum_squares`` adds λ·Σ‖W‖² to the loss, ``sum_norms`` λ·Σ‖W‖, both over all
    parameters, through the optimizer.
    """

    name: str = "adam"
    kwargs: dict[str, Any] = field(default_factory=dict)
    max_lr: float = 3e-4
    warmup_steps: int = 4000
    weight_decay: float = 0.0
    l2_mode: Literal["decoupled", "sum_squares", "sum_norms"] = "decoupled"

    def __post_init__(self) -> None:
        """Check the ranges."""
        if "." not in self.name:
            object.__setattr__(self, "name", self.name.lower())  # one name in files and folders
        _at_least("optimizer.weight_decay", self.weight_decay, 0)
        _at_least("optimizer.warmup_steps", self.warmup_steps, 1)
        _positive("optimizer.max_lr", self.max_lr)
        for key, place in (("lr", "max_lr"), ("weight_decay", "weight_decay")):
            if key in self.kwargs:
                raise ValueError(
                    f"optimizer.kwargs holds {key!r} ({self.kwargs[key]}), which has its own key; "
                    f"give it as optimizer.{place}"
                )
        if self.name == "adam" and self.weight_decay > 0 and self.l2_mode == "decoupled":
            raise ValueError(
                f"optimizer.weight_decay is {self.weight_decay}, but adam has no decoupled decay; "
                "use optimizer adamw, or l2_mode sum_squares or sum_norms"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingConfig:
    """Batches and intervals, all in optimizer steps.

    ``engine``: how a step is carried out; ``auto`` is eager on a CPU, and on CUDA a graph where
    one reproduces the eager steps. ``query_only_head``: compute the query's logits alone where no
    others are trained on (``w_interim_predictions`` 0), which changes nothing but rounding.
    """

    batch_size: int = 32
    accumulate: int = 1
    w_interim_predictions: float = 0.0
    precision: Literal["fp32", "tf32", "bf16"] = "fp32"
    engine: Literal["auto", "eager", "compile", "graph"] = "auto"
    query_only_head: bool = True
    log_interval: int = 100
    eval_interval: int = 1000
    save_interval: int = 1000
    keep_last: int = 2

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("batch_size", "accumulate", "log_interval", "eval_interval", "save_interval"):
            _at_least(f"training.{name}", getattr(self, name), 1)
        _at_least("training.keep_last", self.keep_last, 1)
        w = self.w_interim_predictions
        if not 0 <= w <= 1:
            raise ValueError(f"training.w_interim_predictions is {w}; a weight in [0, 1]")


@dataclass(frozen=True, kw_only=True, slots=True)
class EmbeddingConfig:
    """The input embedder; ``label_init_std`` 0.02 is the reference's initial label table."""

    emb_dim: int = 64
    example_encoding: Literal["resnet", "conv", "linear", "embedding"] = "resnet"
    flatten_superpixels: bool = False
    example_dropout_prob: float = 0.0
    concatenate_labels: bool = False
    use_positional_encodings: bool = True
    positional_dropout_prob: float = 0.0
    label_init_std: float = 0.02

    def __post_init__(self) -> None:
        """Check the ranges."""
        _at_least("embedding.emb_dim", self.emb_dim, 2)
        _positive("embedding.label_init_std", self.label_init_std)
        _probability("embedding.example_dropout_prob", self.example_dropout_prob)
        _probability("embedding.positional_dropout_prob", self.positional_dropout_prob)


@dataclass(frozen=True, kw_only=True, slots=True)
class TransformerConfig:
    """The causal transformer; ``init_scale`` 1 keeps the reference's initial weights."""

    num_layers: int = 12
    num_heads: int = 8
    dropout_prob: float = 0.0
    init_scale: float = 1.0

    def __post_init__(self) -> None:
        """Check the ranges."""
        _positive("transformer.init_scale", self.init_scale)
        _at_least("transformer.num_layers", self.num_layers, 1)
        _at_least("transformer.num_heads", self.num_heads, 1)
        _probability("transformer.dropout_prob", self.dropout_prob)


@dataclass(frozen=True, kw_only=True, slots=True)
class RnnConfig:
    """The recurrent models."""

    num_layers: int = 12
    hidden_size: int = 64

    def __post_init__(self) -> None:
        """Check the ranges."""
        _at_least("rnn.num_layers", self.num_layers, 1)
        _at_least("rnn.hidden_size", self.hidden_size, 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationConfig:
    """Sequences per evaluation of one regime: ``batches`` x ``batch_size``."""

    batches: int = 64
    batch_size: int = 32

    def __post_init__(self) -> None:
        """Check the ranges."""
        _at_least("evaluation.batches", self.batches, 1)
        _at_least("evaluation.batch_size", self.batch_size, 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class IclConfig:
    """One ICL run.

    ``seq_model`` names an entry of ``model.SEQ_MODELS``. One whose constructor takes ``num_heads``
    is built with the settings of ``transformer``, any other with those of ``rnn``.
    """

    data: DataConfig = field(default_factory=DataConfig)
    preproc: PreprocConfig = field(default_factory=PreprocConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    embedding: EmbeddingConfig = field(default_factory=EmbeddingConfig)
    seq_model: str = "transformer"
    transformer: TransformerConfig = field(default_factory=TransformerConfig)
    rnn: RnnConfig = field(default_factory=RnnConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    init: InitConfig = field(default_factory=InitConfig)
    training_steps: int = 500_000
    seed: int = 42

    def __post_init__(self) -> None:
        """Check what involves several parts."""
        _at_least("training_steps", self.training_steps, 1)
        _at_least("seed", self.seed, 0)
        if self.seed >= 2**63:
            raise ValueError(f"seed is {self.seed}; an integer below 2^63 is expected")
        symbolic = self.data.example_type == "symbolic"
        if symbolic != (self.embedding.example_encoding == "embedding"):
            raise ValueError(
                f"embedding.example_encoding is {self.embedding.example_encoding!r} with "
                f"data.example_type {self.data.example_type!r}; symbols need 'embedding', images "
                "'resnet', 'conv' or 'linear'"
            )
        width = self.token_width
        if width % 2:
            raise ValueError(f"embedding.emb_dim gives tokens of width {width}; an even one needed")
        if self.seq_model == "transformer" and width % self.transformer.num_heads:
            raise ValueError(
                f"transformer.num_heads is {self.transformer.num_heads}; it must divide the token "
                f"width {width}"
            )
        size, needed = self.data.symbolic_config.dataset_size, self.data.generator_config.n_classes
        if symbolic and not needed <= size <= self.num_classes:
            raise ValueError(
                f"data.symbolic_config.dataset_size is {size}; at least the {needed} rare, common "
                f"and holdout classes, at most the {self.num_classes} rows of the example table"
            )
        if self.embedding.flatten_superpixels and self.preproc.downsample:
            raise ValueError(
                "embedding.flatten_superpixels is true with preproc.downsample; it needs 105 px"
            )

    @property
    def token_width(self) -> int:
        """Width of a token: twice ``emb_dim`` with concatenated labels."""
        return self.embedding.emb_dim * (2 if self.embedding.concatenate_labels else 1)

    @property
    def polysemy(self) -> int:
        """X of the labeling ``ordered_polysemyX``, else 1."""
        rare = self.data.seq_config.labeling_rare
        _, found, factor = rare.partition("polysemy")
        return int(factor) if found and factor.isdigit() else 1

    @property
    def num_classes(self) -> int:
        """Size of head and label table: rare + common + holdout, or X*rare + common."""
        generator = self.data.generator_config
        if "polysemy" in self.data.seq_config.labeling_rare:
            return self.polysemy * generator.n_rare_classes + generator.n_common_classes
        return generator.n_classes


def _at_least(name: str, value: float, least: float) -> None:
    if not (math.isfinite(value) and value >= least):
        raise ValueError(f"{name} is {value}; a number >= {least} is expected")


def _positive(name: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} is {value}; a positive number is expected")


def _probability(name: str, value: float) -> None:
    if not 0 <= value < 1:
        raise ValueError(f"{name} is {value}; a probability in [0, 1) is expected")
