"""Batches for a graph, engines of a run, and the two shortcuts: the same numbers by other ways."""

from __future__ import annotations

from itertools import islice

import pytest
import torch
from torch.testing import assert_close

from pytorch_port.config.runtime import Runtime
from pytorch_port.config.schema import IclConfig
from pytorch_port.data.device_batches import DeviceBatches
from pytorch_port.data.inputs import IclInputs, load_inputs
from pytorch_port.train.experiment import build, settle_engine
from pytorch_port.train.steps import compiled_twin, resolve_engine, training_steps, trial_losses
from trainrig.config import apply_overrides
from trainrig.data.bank_transforms import view_table

CPU = torch.device("cpu")
SYMBOLIC = {
    "data.example_type": "symbolic",
    "data.symbolic_config.dataset_size": 40,
    "embedding.example_encoding": "embedding",
}
SMALL = {
    "data.generator_config.n_rare_classes": 30,
    "data.generator_config.n_common_classes": 5,
    "data.generator_config.n_holdout_classes": 5,
    "embedding.emb_dim": 16,
    "transformer.num_layers": 2,
    "transformer.num_heads": 2,
    "training.batch_size": 16,
    "training_steps": 4,
    "optimizer.warmup_steps": 1,
}
IMAGES = {"preproc.downsample": True, "data.generator_config.noise_scale": 0.1}


def make(device=CPU, **changes):
    config = apply_overrides(IclConfig(), SMALL | changes)
    if config.data.example_type == "symbolic":
        return config, load_inputs(config, device)
    torch.manual_seed(0)
    images = torch.rand(5, 20, 1, 28, 28).to(device)
    return config, IclInputs(config, device, images, {}, view_table(28).to(device))


@pytest.mark.parametrize("changes", [SYMBOLIC, IMAGES], ids=["symbols", "noisy views"])
@pytest.mark.parametrize("sampler", ["vectorized", "device"])
def test_a_graphs_batches_are_those_of_the_run(changes, sampler):
    _, inputs = make(**changes, **{"data.sampler": sampler})
    source = DeviceBatches(inputs)
    for number in (0, 1, 129, 128, 2):  # a chunk has 128 batches of 16
        source.prepare(number)
        expected = next(inputs.training_batches(number))
        found = source.make()
        assert torch.equal(found.examples, expected.examples)
        assert torch.equal(found.labels, expected.labels)


def test_the_exact_sampler_is_refused():
    _, inputs = make(**SYMBOLIC, **{"data.sampler": "exact"})
    with pytest.raises(ValueError, match="exact sampler draws in Python, outside any graph"):
        DeviceBatches(inputs)


def test_views_are_gathered_as_if_they_were_stored():
    _, inputs = make(**(IMAGES | {"data.generator_config.noise_scale": 0.0}))
    batch = next(inputs.training_batches(0))
    index = inputs.dataset("train")[0]
    for row, item in [(0, 0), (3, 4), (9, 8), (15, 2)]:
        number, view = divmod(int(index.class_index[row, item]), 8)
        image = inputs.images[number, index.exemplar_index[row, item], 0]
        flipped = image.flip(-1) if view >= 4 else image
        assert torch.equal(batch.examples[row, item, 0], torch.rot90(flipped, view % 4))
    assert len({int(k) % 8 for k in index.class_index.flatten()}) == 8


def losses_of(config, inputs):
    records = training_steps(config, inputs, *build(config, inputs))
    return torch.stack([record.loss for record in islice(records, 4)])


@pytest.mark.parametrize("changes", [SYMBOLIC, IMAGES], ids=["symbols", "images"])
def test_the_query_only_shortcut_changes_nothing_but_rounding(changes):
    config, inputs = make(**changes)
    full = apply_overrides(config, {"training.query_only_head": False})
    assert_close(losses_of(config, inputs), losses_of(full, inputs), rtol=1e-5, atol=0)


def test_interim_predictions_need_all_logits():
    config, inputs = make(**SYMBOLIC, **{"training.w_interim_predictions": 0.4})
    record = next(training_steps(config, inputs, *build(config, inputs)))
    assert record.output[0].shape[1] == 17


def test_auto_is_eager_on_a_cpu_and_a_graph_is_refused_there():
    config, inputs = make(**SYMBOLIC)
    model, optimizer = build(config, inputs)
    assert resolve_engine(config, inputs, model).engine == "eager"
    graph = apply_overrides(config, {"training.engine": "graph"})
    with pytest.raises(ValueError, match="captures a CUDA graph, but the run is on cpu"):
        resolve_engine(graph, inputs, model)
    with pytest.raises(ValueError, match="captures a CUDA graph, but the run is on cpu"):
        training_steps(config, inputs, model, optimizer, engine="graph")


def test_a_trial_draws_the_same_dropout_and_leaves_no_trace():
    config, inputs = make(**SYMBOLIC, **{"transformer.dropout_prob": 0.3})
    model, _ = build(config, inputs)
    state = torch.get_rng_state()
    first, second = (trial_losses(config, inputs, model, "eager") for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), state)
    assert len(set(first.tolist())) == 4  # the copy is trained; the model is not
    assert torch.equal(trial_losses(config, inputs, model, "eager"), first)


def test_a_run_keeps_the_engine_that_auto_chose_for_it(tmp_path):
    config, inputs = make(**SYMBOLIC)
    model, _ = build(config, inputs)

    def engine(config, **runtime):
        settled, chosen = settle_engine(config, tmp_path, inputs, model, Runtime(**runtime))
        assert chosen.engine == settled.training.engine
        return settled.training.engine

    assert engine(config) == "eager"
    (tmp_path / "config.json").write_text('{"training": {"engine": "compile"}}')
    assert engine(config) == "compile"
    assert engine(config, overwrite=True) == "eager"
    assert engine(apply_overrides(config, {"training.engine": "eager"})) == "eager"


def test_a_compiled_transformer_shares_its_parameters_and_leaves_the_model_eager():
    config, inputs = make(**SYMBOLIC)
    model, _ = build(config, inputs)
    twin = compiled_twin(model, inputs)
    ours, theirs = dict(twin.named_parameters()), dict(model.named_parameters())
    assert list(ours) == list(theirs)
    assert all(ours[name] is theirs[name] for name in theirs)
    assert twin.embedder is model.embedder
    assert all(block._compiled_call_impl is not None for block in twin.blocks)
    assert all(block._compiled_call_impl is None for block in model.blocks)


@pytest.mark.slow
@pytest.mark.parametrize("changes", [SYMBOLIC, IMAGES], ids=["symbols", "images"])
def test_compiled_steps_equal_eager_ones(changes):
    config, inputs = make(**changes)
    model, _ = build(config, inputs)
    eager, compiled = (trial_losses(config, inputs, model, e) for e in ("eager", "compile"))
    assert_close(compiled, eager, rtol=1e-4, atol=0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("changes", [SYMBOLIC, IMAGES], ids=["symbols", "noisy views"])
def test_graphed_steps_equal_eager_ones_on_a_gpu(changes):
    config, inputs = make(torch.device("cuda"), **changes)
    model, _ = build(config, inputs)
    eager, graph = (trial_losses(config, inputs, model, e) for e in ("eager", "graph"))
    assert_close(graph, eager, rtol=1e-5, atol=0)
    assert resolve_engine(config, inputs, model).engine == "graph"
