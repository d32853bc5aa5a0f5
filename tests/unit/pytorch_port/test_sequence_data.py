import pickle

import pytest
import torch

from pytorch_port.config.schema import DataConfig, GeneratorConfig, SeqConfig
from pytorch_port.data.batch import gather_examples
from pytorch_port.data.loading import SequenceDataset, create_sequence_dataloader, make_spec
from pytorch_port.data.sampler import IndexBatch
from trainrig.data.image_bank import to_float

CONFIG = DataConfig(
    generator_config=GeneratorConfig(n_rare_classes=20, n_common_classes=5, n_holdout_classes=5)
)
BANK = torch.randint(0, 256, (30, 10, 4, 4), dtype=torch.uint8)


def dataset(sampler="vectorized", mode="bursty", n_exemplars=10, **options):
    spec = make_spec(mode, CONFIG, 30, n_exemplars, 30)
    return SequenceDataset(spec, 6, 3, sampler=sampler, **options)


@pytest.mark.parametrize("sampler", ["vectorized", "exact"])
def test_order_does_not_depend_on_the_number_of_workers(sampler):
    state = torch.get_rng_state()

    def run(num_workers):
        loader = create_sequence_dataloader(
            dataset(sampler), BANK, start_step=2, n_steps=5, num_workers=num_workers
        )
        assert len(loader) == 5
        return list(loader)

    alone, shared = run(0), run(2)
    assert len(alone) == len(shared) == 5
    for a, b in zip(alone, shared, strict=True):
        assert torch.equal(a.examples, b.examples)
        assert torch.equal(a.labels, b.labels)
        assert torch.equal(a.is_rare, b.is_rare)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("sampler", ["vectorized", "exact"])
def test_a_resumed_loader_continues(sampler):
    whole = [batch.labels for batch in create_sequence_dataloader(dataset(sampler), n_steps=6)]
    rest = create_sequence_dataloader(dataset(sampler), start_step=4, n_steps=2)
    for expected, found in zip(whole[4:], rest, strict=True):
        assert torch.equal(expected, found.labels)


def test_symbols_are_the_class_ids():
    batch = next(iter(create_sequence_dataloader(dataset(n_exemplars=1), n_steps=1)))
    assert batch.examples.dtype == torch.int64
    assert batch.examples.shape == (6, 9)
    assert len(batch) == 6


def test_images_are_gathered_and_converted_as_the_reference_does():
    indices = dataset()[0]
    shown = gather_examples(BANK, indices).examples
    assert shown.shape == (6, 9, 1, 4, 4)
    assert shown.dtype == torch.float32
    for b, item in [(0, 0), (3, 8), (5, 4)]:
        drawing = BANK[indices.class_index[b, item], indices.exemplar_index[b, item]]
        assert torch.equal(shown[b, item, 0], to_float(drawing))
    ready = to_float(BANK)
    assert torch.equal(gather_examples(ready, indices).examples, shown)
    assert torch.equal(gather_examples(ready.unsqueeze(2), indices).examples, shown)


def test_grey_is_repeated_over_channels():
    shown = gather_examples(BANK, dataset()[0], channels=3).examples
    assert shown.shape == (6, 9, 3, 4, 4)
    assert torch.equal(shown[:, :, 0], shown[:, :, 2])
    colour = torch.zeros(30, 10, 2, 4, 4)
    with pytest.raises(ValueError, match="3 asked for, but the images have 2"):
        gather_examples(colour, dataset()[0], channels=3)
    with pytest.raises(ValueError, match=r"\(K, N, H, W\)"):
        gather_examples(BANK[0], dataset()[0])


def test_noise_is_a_function_of_seed_and_step():
    def run(start):
        loader = create_sequence_dataloader(
            dataset(), BANK, start_step=start, n_steps=3 - start, noise_scale=0.5
        )
        return [batch.examples for batch in loader]

    clean = next(iter(create_sequence_dataloader(dataset(), BANK, n_steps=1))).examples
    noisy = run(0)
    assert torch.equal(noisy[2], run(2)[0])
    assert float((noisy[0] - clean).std()) == pytest.approx(0.5, rel=0.1)


def test_random_rare_images_are_shared_by_equal_numbers():
    drawing = torch.tensor([[-5, 0, -5, -7], [0, -5, -5, 0]])
    index = torch.tensor([[1, 2, 1, 3], [2, 1, 1, 2]])
    batch = IndexBatch(index, drawing, index, index)
    generator = torch.Generator().manual_seed(0)
    shown = gather_examples(BANK[:, :1], batch, random_images=True, generator=generator).examples
    assert torch.equal(shown[0, 0], shown[0, 2])
    assert not torch.equal(shown[0, 0], shown[0, 3])
    assert not torch.equal(shown[0, 0], shown[1, 1])
    assert set(shown[drawing < 0].unique().tolist()) == {0.0, 1.0}
    assert torch.equal(shown[0, 1, 0], to_float(BANK[2, 0]))


def test_random_rare_runs_through_the_loader():
    seq = SeqConfig(randomly_generate_rare=True)
    config = DataConfig(generator_config=CONFIG.generator_config, seq_config=seq)
    for sampler in ("vectorized", "exact"):
        data = SequenceDataset(make_spec("bursty", config, 30, 1), 6, 3, sampler=sampler)
        first, again = (
            next(iter(create_sequence_dataloader(data, BANK[:, :1], n_steps=1))) for _ in range(2)
        )
        assert torch.equal(first.examples, again.examples)
        with pytest.raises(ValueError, match="random images need images"):
            create_sequence_dataloader(data, n_steps=1)


@pytest.mark.parametrize("sampler", ["vectorized", "exact"])
def test_datasets_survive_pickling(sampler):
    data = dataset(sampler)
    expected = data[5]
    assert torch.equal(pickle.loads(pickle.dumps(data))[5].label, expected.label)


def test_bad_settings_are_refused():
    spec = make_spec("bursty", CONFIG, 30, 10)
    with pytest.raises(ValueError, match="did you mean 'vectorized'"):
        SequenceDataset(spec, 6, 3, sampler="vectorised")
    with pytest.raises(ValueError, match="batch_size"):
        SequenceDataset(spec, 0, 3)
    with pytest.raises(IndexError):
        dataset(n_batches=3)[3]
    with pytest.raises(ValueError, match="within"):
        create_sequence_dataloader(dataset(n_batches=3), start_step=2, n_steps=2)
    with pytest.raises(ValueError, match=r"\(30, 9\) classes and drawings"):
        create_sequence_dataloader(dataset(), BANK[:, :9])
    with pytest.raises(ValueError, match="reach 1, but the head has 1"):
        make_spec("eval_fewshot_holdout", CONFIG, 30, 10, 1)
    with pytest.raises(ValueError, match="reach 24, but the head has 24"):
        make_spec("bursty", CONFIG, 30, 10, 24)
    with pytest.raises(ValueError, match="30 classes, but the data have 29"):
        make_spec("bursty", CONFIG, 29)
