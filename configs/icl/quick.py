"""A small model on 28-px images that shows the science on a CPU in minutes.

    python analysis/run_adamw_sweep_torch.py --preset quick

Two layers of width 64 with one head each, a small convolutional encoder that reads ink, AdamW at
1.5e-3, batches of 32 as in the reference. With 1600 classes in-context accuracy begins to rise
between steps 1,000 and 1,500 and ends above 0.7; with 100 classes in-weights accuracy ends above
0.95 and in-context accuracy stays at chance (0.5). How often: runs/torch_adamw_sweep/archive, five
seeds on glyphs and on Omniglot, and what else was tried.

The two ways of learning compete: reading the context took steps in all trials, remembering took
sequences. So small batches help the context, and so does a short warm-up, after which the rate
falls sooner. Initial values depart from the reference's in two scales, of the label table and of
the blocks' weights.
"""

from typing import Any

from pytorch_port.config.files import config_tree


def get_config() -> Any:
    """Return what differs from the defaults (``images_all_exemplars``)."""
    return config_tree(
        {
            "data": {"source": "auto"},
            "preproc": {"downsample": True},
            "optimizer": {"name": "adamw", "max_lr": 1.5e-3, "warmup_steps": 400},
            "training": {
                "batch_size": 32,
                "log_interval": 50,
                "eval_interval": 250,
                "save_interval": 500,
            },
            "embedding": {"example_encoding": "conv", "label_init_std": 1.0},
            "transformer": {"num_layers": 2, "num_heads": 1, "init_scale": 0.4},
            "evaluation": {"batches": 4, "batch_size": 256},
            "training_steps": 4000,
            "seed": 0,
        }
    )
