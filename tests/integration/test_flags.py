"""Same idea, same flag: every command line speaks one language, prescribed spellings beside it."""

from __future__ import annotations

import argparse
import importlib

import pytest

from trainrig import commands

#: The flag of an idea → the other spellings that it has somewhere, prescribed or published.
IDEAS = {
    "--steps": ("--max-steps", "--training-steps"),
    "--epochs": ("-N", "--num-epochs", "--nepochs", "--max-epochs"),
    "--output-dir": ("--base-output-dir", "--results-dir", "--out"),
    "--lr": ("--learning-rate", "--torch-learning-rate"),
    "--seed": ("-r", "--random-seed"),
    "--weight-decay": ("--wd",),
    "--batch-size": ("--bs",),
    "--device": ("--accelerator", "--torch-accelerator"),
    "--tracker": ("--logger", "--torch-logger"),
    "--config": ("--config-path",),
    "--data-dir": ("-d",),
    "--num-workers": ("--torch-num-workers",),
}
#: What a command that trains one run has, besides ``--steps`` or ``--epochs``.
OF_A_RUN = (
    *("--output-dir", "--optimizer", "--lr", "--seed", "--weight-decay", "--batch-size"),
    *("--device", "--threads", "--tracker", "--print-config"),
)
TRAIN = ("icl train", "cifar train", "deepobs run", "ptycho train")
#: What a command that trains several has.
OF_MANY = ("--output-dir", "--seeds", "--launcher", "--jobs", "--dry-run", "--threads")
SWEEP = ("icl sweep", "icl figure3a", "cifar sweep", "deepobs tune", "ptycho ensemble")
#: Destinations of one idea: a flag never means another thing in another place.
PLACES = {
    "--lr": {"lr", "optimizer.lr", "optimizer.max_lr", "learning_rate"},
    "--seed": {"seed", "random_seed"},
    "--steps": {"training_steps", "steps"},
    "--epochs": {"num_epochs", "nepochs"},
    "--optimizer": {"optimizer", "optimizer.name", "optimizer.type"},
    "--output-dir": {"output_dir", "base_output_dir", "results_dir"},
    "--batch-size": {"batch_size", "training.batch_size"},
    "--weight-decay": {"weight_decay", "optimizer.weight_decay"},
}


def parsers():
    """Return the parsers of all commands, subcommands too, by their words."""
    found = {}
    for system, package in {"": commands, **commands.groups()}.items():
        for name in package.COMMANDS:
            module = importlib.import_module(f"{package.__name__}.{name}")
            found[f"{system} {name}".strip()] = module.make_parser()
    for words, parser in list(found.items()):
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                found |= {f"{words} {name}": one for name, one in action.choices.items()}
    return found


PARSERS = parsers()


def flags(parser):
    return {flag: a.dest for a in parser._actions for flag in a.option_strings}


def test_every_command_is_walked():
    assert {*TRAIN, *SWEEP, "verify icl", "report", "deepobs plot"} <= set(PARSERS)
    assert len(PARSERS) >= 25


@pytest.mark.parametrize("words", PARSERS)
def test_an_idea_has_its_flag_wherever_it_has_another_spelling(words):
    known = flags(PARSERS[words])
    for flag, spellings in IDEAS.items():
        for spelling in {*spellings} & {*known}:
            assert flag in known, f"{spelling} without {flag}"
            assert known[flag] == known[spelling]


@pytest.mark.parametrize("words", PARSERS)
def test_a_flag_means_the_same_everywhere(words):
    known = flags(PARSERS[words])
    for flag, places in PLACES.items():
        assert known.get(flag) in {*places, None}, flag


@pytest.mark.parametrize("words", TRAIN)
def test_a_command_that_trains_a_run_has_the_flags_of_a_run(words):
    known = flags(PARSERS[words])
    assert [flag for flag in OF_A_RUN if flag not in known] == []
    assert {"--steps", "--epochs"} & {*known}


@pytest.mark.parametrize("words", SWEEP)
def test_a_command_that_trains_several_has_the_flags_of_several(words):
    assert [flag for flag in OF_MANY if flag not in flags(PARSERS[words])] == []
