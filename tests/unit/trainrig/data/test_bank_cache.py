"""Cached banks: read back whole, rebuilt when damaged, never confused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from trainrig.data.bank_cache import fetch_bank, write_atomically
from trainrig.data.image_bank import hash_pixels


@pytest.fixture
def builder(bank):
    """A build function that counts its calls."""

    class Builder:
        calls = 0
        made = replace(
            bank, sha256=hash_pixels(bank.images), dictionary_order=torch.tensor([3, 1, 0, 2])
        )

        def __call__(self):
            self.calls += 1
            return self.made

    return Builder()


def test_second_fetch_reads_the_same_bank(builder):
    first = fetch_bank("x", {"a": 1}, builder)
    second = fetch_bank("x", {"a": 1}, builder)
    assert builder.calls == 1
    assert torch.equal(first.images, second.images)
    assert torch.equal(first.class_ids, second.class_ids)
    assert torch.equal(first.dictionary_order, second.dictionary_order)
    assert first.class_names == second.class_names
    assert first.describe() == second.describe()


def test_other_keys_do_not_collide(builder):
    fetch_bank("x", {"a": 1}, builder)
    fetch_bank("x", {"a": 2}, builder)
    fetch_bank("x", {"a": "1"}, builder)
    assert builder.calls == 3


def test_no_cache_touches_no_file(builder, own_cache):
    fetch_bank("x", {"a": 1}, builder, cache=False)
    assert not own_cache.exists()


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_last_pixels(path):
    images = torch.load(path, weights_only=True)
    images[-1] ^= 1
    torch.save(images, path)


def drop(path):
    path.unlink()


@pytest.mark.parametrize(
    ("suffix", "damage"),
    [
        (".pt", truncate),
        (".pt", flip_last_pixels),
        (".pt", drop),
        (".pt", lambda path: path.write_bytes(b"")),
        (".json", truncate),
        (".json", lambda path: path.write_text(json.dumps({"key": None}))),
        (".json", lambda path: path.write_bytes(b"\xff\xfe")),
    ],
)
def test_damaged_copy_is_rebuilt_with_a_message(builder, own_cache, caplog, suffix, damage):
    fetch_bank("x", {"a": 1}, builder)
    (path,) = own_cache.glob(f"*{suffix}")
    damage(path)
    again = fetch_bank("x", {"a": 1}, builder)
    assert builder.calls == 2
    assert "x: the cached copy is unusable" in caplog.text
    assert torch.equal(again.images, builder.made.images)
    fetch_bank("x", {"a": 1}, builder)
    assert builder.calls == 2


def test_unwritable_cache_costs_a_warning(builder, own_cache, caplog):
    own_cache.write_text("a file where the folder should be")
    bank = fetch_bank("x", {"a": 1}, builder)
    assert torch.equal(bank.images, builder.made.images)
    assert "cannot be cached" in caplog.text


def test_interrupted_write_leaves_nothing(tmp_path):
    def fail(file):
        file.write(b"half")
        raise KeyboardInterrupt

    path = tmp_path / "folder" / "x.pt"
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, fail)
    assert list(path.parent.iterdir()) == []


KILLED = """
import os, signal, sys
import torch
from trainrig.data import bank_cache
from trainrig.data.glyphs import load_glyphs
real = torch.save
def save(value, file):
    real(value, file)
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
torch.save = save
load_glyphs(seed=0)
"""


def test_what_a_kill_leaves_in_the_cache_is_gone_after_the_next_run(tmp_path):
    environment = {**os.environ, "TRAINRIG_CACHE_DIR": str(tmp_path)}

    def run(program):
        return subprocess.run([sys.executable, "-c", program], env=environment).returncode

    again = "from trainrig.data.glyphs import load_glyphs; load_glyphs(seed=0)"
    assert run(KILLED) == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert left.stat().st_size > 1e6
    assert run(again) == 0
    whole = sorted(path.suffix for path in tmp_path.iterdir())
    assert whole == [".json", ".pt"]
    assert run(KILLED.replace("seed=0", "seed=1")) == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 3
    assert run(again) == 0  # which writes nothing itself
    assert sorted(path.suffix for path in tmp_path.iterdir()) == whole
