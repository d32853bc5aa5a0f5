"""Symbolic sequences: a class is its own only example, an integer.

    python analysis/pytorch_train.py --config configs/icl/symbolic.py --max-steps 2000

About 15 steps/s on one CPU core. Without within-class variation in-weights accuracy reaches 1.0 at
once and in-context accuracy stays at chance (0.5), as in the paper's single-exemplar case.
"""

from typing import Any

from pytorch_port.config.files import config_tree


def get_config(debug: bool = False) -> Any:
    """Return what differs from the defaults (``images_all_exemplars``)."""
    layers, heads = (2, 2) if debug else (12, 8)
    return config_tree(
        {
            "data": {"example_type": "symbolic", "symbolic_config": {"dataset_size": 1623}},
            "embedding": {"example_encoding": "embedding"},
            "transformer": {"num_layers": layers, "num_heads": heads},
        }
    )
