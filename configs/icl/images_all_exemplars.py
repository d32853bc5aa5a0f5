"""The reference's main configuration: Omniglot, every exemplar, bursty sequences.

    python analysis/pytorch_train.py --config configs/icl/images_all_exemplars.py

500,000 steps of a 12-layer transformer with a ResNet encoder: days on a CPU, hours on a GPU.
Expected (Chan et al. 2022, Fig. 3, 1600 classes): in-context accuracy 0.78 at 60k steps, fading to
0.66 at 500k; in-weights 0.00 at 50k, 0.26 at 500k.
"""

from typing import Any

from pytorch_port.config.files import config_tree


def get_config(debug: bool = False) -> Any:
    """Return the tree; ``debug`` gives 2 layers and 2 heads."""
    layers, heads = (2, 2) if debug else (12, 8)
    return config_tree(
        {
            "data": {
                "train_seqs": "bursty",
                "example_type": "omniglot",
                "generator_config": {
                    "n_rare_classes": 1603,
                    "n_common_classes": 10,
                    "n_holdout_classes": 10,
                    "zipf_exponent": 0.0,
                    "use_zipf_for_common_rare": False,
                    "noise_scale": 0.0,
                    "preserve_ordering_every_n": None,
                },
                "omniglot_config": {
                    "omniglot_split": "all",
                    "exemplars": "all",
                    "augment_images": False,
                },
                "symbolic_config": {"dataset_size": 1000},
                "seq_config": {
                    "seq_len": 9,
                    "fs_shots": 4,
                    "bursty_shots": 3,
                    "ways": 2,
                    "p_bursty": 0.9,
                    "p_bursty_common": 0.0,
                    "p_bursty_zipfian": 1.0,
                    "p_fewshot": 0.1,
                    "non_bursty_type": "zipfian",
                    "labeling_common": "ordered",
                    "labeling_rare": "ordered",
                    "randomly_generate_rare": False,
                    "grouped": False,
                },
            },
            "preproc": {"downsample": False},
            "optimizer": {"name": "adam", "kwargs": {}, "max_lr": 3e-4, "warmup_steps": 4000},
            "training": {"batch_size": 32, "w_interim_predictions": 0.0},
            "embedding": {
                "emb_dim": 64,
                "example_encoding": "resnet",
                "flatten_superpixels": False,
                "example_dropout_prob": 0.0,
                "concatenate_labels": False,
                "use_positional_encodings": True,
                "positional_dropout_prob": 0.0,
            },
            "seq_model": "transformer",
            "transformer": {"num_layers": layers, "num_heads": heads, "dropout_prob": 0.0},
            "rnn": {"num_layers": layers, "hidden_size": 64},
            "training_steps": 500_000,
        }
    )
