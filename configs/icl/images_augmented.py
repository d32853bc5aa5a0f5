"""The reference's augmented configuration: 12,984 classes by flips and rotations.

    python analysis/pytorch_train.py --config configs/icl/images_augmented.py

Expected (Chan et al. 2022, Fig. 3, 12800 classes): in-context accuracy 0.93 at 500k steps,
in-weights 0.
"""

from typing import Any

from pytorch_port.config.files import config_tree


def get_config(debug: bool = False) -> Any:
    """Return what differs from the defaults (``images_all_exemplars``)."""
    layers, heads = (2, 2) if debug else (12, 8)
    return config_tree(
        {
            "data": {
                "generator_config": {
                    "n_rare_classes": 12700,
                    "n_common_classes": 100,
                    "n_holdout_classes": 80,
                    "preserve_ordering_every_n": 8,
                },
                "omniglot_config": {"augment_images": True},
            },
            "transformer": {"num_layers": layers, "num_heads": heads},
        }
    )
