"""torchvision and TensorFlow Datasets give the images and ids of our own reader, on real files."""

from __future__ import annotations

import io
import os
import sys
import zipfile

import numpy as np
import pytest
import torch

from trainrig.data.omniglot import load_omniglot
from trainrig.data.omniglot_files import PARTS

pytestmark = pytest.mark.data


def assert_same(one, other):
    assert torch.equal(one.class_ids, other.class_ids)
    assert torch.equal(one.images, other.images)
    assert one.class_names == other.class_names
    assert one.order == other.order
    assert one.sha256 == other.sha256


def zip_members(root, part):
    with zipfile.ZipFile(root / "omniglot-py" / f"{part}.zip") as archive:
        for name in archive.namelist():
            if name.endswith(".png"):
                _, alphabet, character, file = name.split("/")
                yield alphabet, int(character[-2:]) - 1, file, archive.read(name)


@pytest.fixture(scope="module")
def torchvision():
    return pytest.importorskip("torchvision")


def test_torchvision_gives_the_same_bank(torchvision, real_subset, real_subset_bank):
    assert_same(load_omniglot(real_subset, source="torchvision", complete=False), real_subset_bank)


def test_torchvision_reads_unpacked_folders(
    torchvision, real_subset, real_subset_bank, unpack, tmp_path
):
    root = unpack(real_subset, tmp_path / "unpacked")
    bank = load_omniglot(root, source="torchvision", complete=False)
    assert_same(bank, real_subset_bank)


def test_ids_do_not_follow_the_directory_listing(
    torchvision, real_subset, real_subset_bank, unpack, tmp_path, monkeypatch
):
    root = unpack(real_subset, tmp_path / "unpacked")
    listing = os.listdir

    class Local(torchvision.datasets.Omniglot):
        def _check_integrity(self):
            return True

    def raw_labels(reverse):
        monkeypatch.setattr(os, "listdir", lambda path: sorted(listing(path), reverse=reverse))
        dataset = Local(root, background=True)
        names = [name for name, _ in dataset._flat_character_images]
        return {name: label for name, (_, label) in zip(names, dataset, strict=True)}

    ascending, descending = raw_labels(False), raw_labels(True)
    assert ascending != descending  # the trap: torchvision's own labels follow the listing
    assert min(ascending.values()) == 0
    bank = load_omniglot(root, source="torchvision", complete=False)
    assert_same(bank, real_subset_bank)


@pytest.fixture(scope="module")
def tfds():
    return pytest.importorskip("tensorflow_datasets")


@pytest.fixture(scope="module")
def prepare(tfds):
    """Return a function that writes an array_record copy of zips; no TensorFlow is involved."""

    def write(root, folder, *, label_names=True, disable_shuffling=False, key=None):
        characters = [
            (alphabet, character, file, data, split)
            for split, part in PARTS.items()
            for alphabet, character, file, data in zip_members(root, part)
        ]
        alphabets = sorted({alphabet for alphabet, *_ in characters})
        names = [f"absent_{i}" for i in range(1623)]
        for alphabet, character, file, *_ in characters:
            names[int(file[:4]) - 1] = f"{alphabet}_{character}"

        class Omniglot(tfds.core.GeneratorBasedBuilder, skip_registration=True):
            VERSION = tfds.core.Version("3.0.0")

            def _info(self):
                label = {"names": names} if label_names else {"num_classes": 1623}
                return tfds.core.DatasetInfo(
                    builder=self,
                    features=tfds.features.FeaturesDict(
                        {
                            "image": tfds.features.Image(
                                shape=(105, 105, 3), encoding_format="png"
                            ),
                            "alphabet": tfds.features.ClassLabel(names=alphabets),
                            "alphabet_char_id": np.int64,
                            "label": tfds.features.ClassLabel(**label),
                        }
                    ),
                    disable_shuffling=disable_shuffling,
                )

            def _split_generators(self, dl_manager):
                return {split: self._generate_examples(split) for split in PARTS}

            def _generate_examples(self, split):
                for i, (alphabet, character, file, data, where) in enumerate(characters):
                    if where == split:
                        named = f"{alphabet}_{character}_{file}"
                        yield (
                            key(i) if key else named,
                            {
                                "image": io.BytesIO(data),
                                "alphabet": alphabet,
                                "alphabet_char_id": character,
                                "label": int(file[:4]) - 1,
                            },
                        )

        Omniglot(data_dir=folder, file_format="array_record").download_and_prepare()
        assert "tensorflow" not in sys.modules
        return folder

    return write


@pytest.fixture(scope="module")
def prepared(prepare, real_subset, tmp_path_factory):
    """The subset of 102 classes as TensorFlow Datasets stores it."""
    return prepare(real_subset, tmp_path_factory.mktemp("prepared"))


def test_tfds_gives_the_same_bank(prepared, real_subset_bank):
    bank = load_omniglot(prepared, source="tfds", complete=False)
    assert bank.n_classes >= 50
    assert_same(bank, real_subset_bank)
    directly = load_omniglot(prepared / "omniglot/3.0.0", source="tfds", complete=False)
    assert_same(directly, real_subset_bank)


def test_tfds_without_label_names_uses_alphabets(prepare, real_subset, real_subset_bank, tmp_path):
    prepare(real_subset, tmp_path, label_names=False)
    assert_same(load_omniglot(tmp_path, source="tfds", complete=False), real_subset_bank)


def test_one_bit_trap_is_real_and_handled(tfds, prepared):
    builder = tfds.builder_from_directory(prepared / "omniglot/3.0.0")
    record = builder.as_data_source("train")[0]
    assert record["image"].max() == 1  # the trap: TensorFlow decodes the same file to 0/255
    bank = load_omniglot(prepared, source="tfds", complete=False)
    assert torch.unique(bank.images).tolist() == [0, 255]
    stored = record["image"][..., 0] * 255
    row = bank.class_ids.tolist().index(int(record["label"]))
    assert any(np.array_equal(stored, image.numpy()) for image in bank.images[row])


def test_record_order_is_that_of_tfds_for_every_source(tfds, prepared, real_subset):
    """The order that our reader predicts is the one in which the records lie."""
    builder = tfds.builder_from_directory(prepared / "omniglot/3.0.0")
    stored, first_seen = {}, []
    for split in ("train", "test"):
        for record in builder.as_data_source(split):
            label = int(record["label"])
            if label not in stored:
                first_seen.append(label)
            stored.setdefault(label, []).append(record["image"][..., 0] * 255)
    for source, root in (("files", real_subset), ("tfds", prepared)):
        bank = load_omniglot(root, source=source, order="tfds", complete=False)
        assert bank.class_ids[bank.dictionary_order].tolist() == first_seen
        for row, label in enumerate(bank.class_ids.tolist()):
            np.testing.assert_array_equal(bank.images[row], np.stack(stored[label]))


@pytest.mark.parametrize("foreign", [{"disable_shuffling": True, "key": lambda i: i}, {"key": str}])
def test_unknown_keys_keep_record_order_and_say_so(
    prepare, real_subset, real_subset_bank, tmp_path, caplog, foreign
):
    prepare(real_subset, tmp_path, **foreign)
    bank = load_omniglot(tmp_path, source="tfds", complete=False)
    assert "drawing numbers are unknown" in caplog.text
    assert bank.order == "record order (drawing numbers unknown)"
    assert torch.equal(bank.class_ids, real_subset_bank.class_ids)
    for ours, theirs in zip(bank.images[:10], real_subset_bank.images[:10], strict=True):
        expected = sorted(image.numpy().tobytes() for image in theirs)
        assert sorted(image.numpy().tobytes() for image in ours) == expected


def test_tfds_errors_name_the_place(prepared, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"omniglot/<version>/dataset_info\.json"):
        load_omniglot(tmp_path, source="tfds")
    with pytest.raises(ValueError, match="expected images_background with 964 characters"):
        load_omniglot(prepared, source="tfds")
    info = tmp_path / "omniglot" / "3.0.0" / "dataset_info.json"
    info.parent.mkdir(parents=True)
    info.write_text('{"fileFormat": "tfrecord"}')
    with pytest.raises(ValueError, match="prepared as 'tfrecord', which only TensorFlow reads"):
        load_omniglot(tmp_path, source="tfds")


def test_missing_package_names_the_extra(prepared, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(ValueError, match="install the extra 'tfds'"):
        load_omniglot(prepared, source="tfds", complete=False)


@pytest.mark.slow
@pytest.mark.parametrize("source", ["torchvision", "tfds"])
def test_complete_sets_are_equal(source, data_dir, omniglot, request, tmp_path):
    root = data_dir
    if source == "tfds":
        root = request.getfixturevalue("prepare")(data_dir, tmp_path)
    assert_same(load_omniglot(root, source=source, cache=False), omniglot)
