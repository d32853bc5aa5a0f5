"""Mode names of the configuration (``bursty``, ``fewshot_holdout``, ...) as generator calls.

Source: icl reference ``experiment/experiment.py`` (revision eba75a4), which builds the same calls
from the same configuration keys.
"""

from __future__ import annotations

from typing import Any

from pytorch_port.config.schema import GeneratorConfig, SeqConfig
from pytorch_port.data.partition import ClassPartition
from pytorch_port.data.plan import SequencePlan, make_plan
from trainrig.errors import nearest

MODES = (
    "bursty",
    "no_support_common",
    "no_support_rare",
    "no_support_zipfian",
    "fewshot_rare",
    "fewshot_zipfian",
    "fewshot_holdout",
    "fewshot_common",
    "mixed",
)


def make_partition(config: GeneratorConfig, n_data_classes: int) -> ClassPartition:
    """Cut the configured partition from the classes of a data set.

    Raises:
        ValueError: the counts do not fit the data.
    """
    return ClassPartition(
        n_data_classes,
        config.n_rare_classes,
        config.n_common_classes,
        config.n_holdout_classes,
        zipf_exponent=config.zipf_exponent,
        use_zipf_for_common_rare=config.use_zipf_for_common_rare,
        preserve_ordering_every_n=config.preserve_ordering_every_n,
    )


def mode_call(mode: str, config: SeqConfig) -> tuple[str, dict[str, Any]]:
    """Return the generator method and keyword arguments behind a mode name.

    Args:
        mode: one of ``MODES``, optionally prefixed ``eval_``.
        config: the sequence settings.

    Raises:
        ValueError: an unknown mode.
    """
    name = mode.removeprefix("eval_")
    if name not in MODES:
        hint = nearest(name, MODES)
        raise ValueError(f"mode: unknown {mode!r}{hint}; accepted: {', '.join(MODES)}")
    if name == "bursty":
        return "get_bursty_seq", {
            "seq_len": config.seq_len,
            "shots": config.bursty_shots,
            "ways": config.ways,
            "p_bursty": config.p_bursty,
            "p_bursty_common": config.p_bursty_common,
            "p_bursty_zipfian": config.p_bursty_zipfian,
            "non_bursty_type": config.non_bursty_type,
            "labeling_common": config.labeling_common,
            "labeling_rare": config.labeling_rare,
            "randomly_generate_rare": config.randomly_generate_rare,
            "grouped": config.grouped,
        }
    if name == "mixed":
        return "get_mixed_seq", {
            "shots": config.fs_shots,
            "ways": config.ways,
            "p_fewshot": config.p_fewshot,
        }
    family, class_type = name.rsplit("_", 1)
    if family == "no_support":
        return "get_no_support_seq", {
            "class_type": class_type,
            "seq_len": config.seq_len,
            "all_unique": False,
            "labeling": config.labeling_common,  # for rare and zipfian too, as in the reference
            "randomly_generate_rare": config.randomly_generate_rare,
        }
    return "get_fewshot_seq", {
        "class_type": class_type,
        "shots": config.fs_shots,
        "ways": config.ways,
        "labeling": "unfixed",
        "randomly_generate_rare": config.randomly_generate_rare and class_type != "common",
        "grouped": config.grouped,
    }


def mode_plan(mode: str, config: SeqConfig, partition: ClassPartition) -> SequencePlan:
    """Return the checked plan of a mode.

    Raises:
        ValueError: an unknown mode or setting, or sequences that ``partition`` cannot supply.
    """
    method, args = mode_call(mode, config)
    return make_plan(partition, method, args)
