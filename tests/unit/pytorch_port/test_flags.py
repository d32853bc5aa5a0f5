"""Flags: each is tied to a key that exists, and only what is given changes anything."""

from __future__ import annotations

import pytest
import pytorch_train
import run_adamw_sweep_torch

from pytorch_port.config.schema import IclConfig
from pytorch_port.sweep.flags import configure, dotted_keys, runtime_options
from trainrig.config import flatten, to_dict

SCRIPTS = [pytorch_train, run_adamw_sweep_torch]


def configured(*words, config=None):
    parser = pytorch_train.make_parser()
    return configure(config or IclConfig(), parser.parse_args(list(words)), dotted_keys(parser))


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_key_exists_in_the_configuration(script):
    keys = dotted_keys(script.make_parser())
    assert keys
    assert keys <= set(flatten(to_dict(IclConfig())))


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_flag_has_both_spellings_and_a_help_text(script):
    for action in script.make_parser()._actions:
        assert action.help
        long = {flag for flag in action.option_strings if flag.startswith("--")}
        wanted = {"--" + flag[2:].replace("-", "_") for flag in long} - {"--no_downsample"}
        assert wanted <= long


def test_no_flag_changes_nothing():
    assert configured() == IclConfig()


def test_flags_and_set_reach_their_keys_and_set_wins():
    config = configured("--n_rare", "5", "--seed", "9", "--set", "seed=3")
    assert config.data.generator_config.n_rare_classes == 5
    assert config.seed == 3


def test_symbols_choose_what_they_need():
    words = ("--example-type", "symbolic", "--n-rare", "5", "--n-common", "3", "--n-holdout", "4")
    config = configured(*words)
    assert config.embedding.example_encoding == "embedding"
    assert config.data.symbolic_config.dataset_size == 12
    with pytest.raises(ValueError, match="dataset_size is 11; at least the 12"):
        configured(*words, "--symbolic-dataset-size", "11")


@pytest.mark.parametrize("word", ["abc", "nan", "1.5"])
def test_bad_counts_beside_symbols_are_named(word):
    with pytest.raises(ValueError, match=r"n_rare_classes is .*; an integer is expected"):
        configured(
            "--example-type", "symbolic", "--set", f"data.generator_config.n_rare_classes={word}"
        )


def test_runtime_options(tmp_path):
    parser = pytorch_train.make_parser()
    options = runtime_options(parser.parse_args(["--no-track", "--data-dir", str(tmp_path)]))
    assert options["tracker"] == "none"
    assert options["data_dir"] == str(tmp_path)
    assert options["device"] == "auto"
    assert runtime_options(parser.parse_args([]))["data_dir"] is None
