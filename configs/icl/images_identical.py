"""The reference's single-exemplar configuration: one drawing per class, no within-class variation.

    python analysis/pytorch_train.py --config configs/icl/images_identical.py

Expected (Chan et al. 2022, Fig. 5, no noise): in-weights accuracy >= 0.97, in-context 0.50.
"""

from typing import Any

from pytorch_port.config.files import config_tree


def get_config(debug: bool = False) -> Any:
    """Return what differs from the defaults (``images_all_exemplars``)."""
    layers, heads = (2, 2) if debug else (12, 8)
    return config_tree(
        {
            "data": {"omniglot_config": {"exemplars": "single"}},
            "transformer": {"num_layers": layers, "num_heads": heads},
        }
    )
