"""The ICL configuration: the reference's defaults, original files as they are, mistakes named."""

from __future__ import annotations

import json

import pytest

from pytorch_port.config.files import REFERENCE_ONLY, load_icl_config, reference_tree
from pytorch_port.config.schema import IclConfig
from trainrig.config import apply_overrides, diff, from_dict, to_dict


def change(**overrides):
    return apply_overrides(IclConfig(), {k.replace("__", "."): v for k, v in overrides.items()})


def test_defaults_are_the_reference_configuration(repo_root):
    config = load_icl_config(repo_root / "configs/icl/images_all_exemplars.py")
    assert diff(to_dict(config), to_dict(IclConfig())) == []
    assert config.num_classes == 1623
    assert (config.transformer.num_layers, config.transformer.num_heads) == (12, 8)
    assert (config.optimizer.max_lr, config.optimizer.warmup_steps) == (3e-4, 4000)


def test_every_shipped_configuration_loads_and_survives_json(repo_root):
    files = sorted((repo_root / "configs/icl").glob("*.py"))
    assert len(files) >= 5
    for file in files:
        config = load_icl_config(file)
        assert from_dict(IclConfig, json.loads(json.dumps(to_dict(config))), "file") == config


def test_an_original_tree_is_unwrapped_and_its_dead_keys_are_read_past():
    inner = {"training": {"batch_size": 7, "learning_rate": 9.0}, "optimizer": {"clip_level": 1}}
    inner |= {"evaluation": {"batch_size": 1}, "embedding": {"num_classes": None}}
    original = {"experiment_kwargs": {"config": inner}, "training_steps": 11, "random_seed": 3}
    kept = json.loads(json.dumps(original))
    config = from_dict(IclConfig, reference_tree(original), "original")
    assert original == kept  # the caller's tree is left alone
    assert (config.training.batch_size, config.training_steps, config.seed) == (7, 11, 3)
    assert config.evaluation == IclConfig().evaluation
    assert "optimizer.clip_level" in REFERENCE_ONLY


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        ({"data__generator_config__zipf_exponent": "nan"}, "zipf_exponent is nan"),
        ({"data__seq_config__p_fewshot": 1.5}, "p_fewshot is 1.5; a probability"),
        ({"data__seq_config__seq_len": 6}, "at least bursty_shots * ways + 1 = 7"),
        ({"embedding__emb_dim": 7}, "tokens of width 7; an even one"),
        ({"transformer__num_heads": 5}, "num_heads is 5; it must divide the token width 64"),
        ({"embedding__example_encoding": "embedding"}, "images 'resnet', 'conv' or 'linear'"),
        ({"data__example_type": "symbolic"}, "symbols need 'embedding'"),
        ({"optimizer__weight_decay": 0.1}, "adam has no decoupled decay"),
        ({"optimizer__max_lr": "inf"}, "max_lr is inf; a positive number"),
        ({"training__w_interim_predictions": "nan"}, "w_interim_predictions is nan"),
        ({"training__keep_last": 0}, "keep_last is 0"),
        ({"training__batch_size": True}, "batch_size is True; an integer"),
        ({"preproc__downsample": True, "embedding__flatten_superpixels": True}, "needs 105 px"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**63}, "an integer below 2^63"),
        ({"optimizer__kwargs__weight_decay": 0.1}, "give it as optimizer.weight_decay"),
        ({"optimizer__kwargs__lr": 0.1}, "give it as optimizer.max_lr"),
    ],
)
def test_mistakes_name_the_key_and_the_value(overrides, text):
    with pytest.raises(ValueError, match="command line") as caught:
        change(**overrides)
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("labeling", "classes"),
    [("ordered", 1623), ("original", 1623), ("ordered_polysemy3", 3 * 1603 + 10)],
)
def test_head_size_follows_the_labelling(labeling, classes):
    config = change(data__seq_config__labeling_rare=labeling)
    assert config.num_classes == classes


def test_concatenated_labels_double_the_token():
    config = change(embedding__concatenate_labels=True, transformer__num_heads=16)
    assert config.token_width == 128


def test_penalties_go_with_adam():
    assert change(optimizer__weight_decay=0.1, optimizer__l2_mode="sum_norms").optimizer.name == (
        "adam"
    )


@pytest.mark.parametrize("train_seqs", ["bursty", "fewshot_rare", "mixed"])
def test_sequence_lengths(train_seqs):
    config = change(data__train_seqs=train_seqs, data__seq_config__seq_len=12)
    assert config.data.n_items == (12 if train_seqs == "bursty" else 9)
