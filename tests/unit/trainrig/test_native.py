"""Libraries built on demand: once, whole, and not at all where it cannot be."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest

from trainrig import native
from trainrig.models.channels import SOURCE


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TRAINRIG_CACHE_DIR", str(tmp_path / "cache"))
    native.load.cache_clear()
    yield tmp_path / "cache/native"
    native.load.cache_clear()


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "answer.c"
    path.write_text("int answer(void) { return 42; }\n")
    return path


def test_a_library_is_built_once_and_kept(source, cache, monkeypatch):
    assert native.load(source, "").answer() == 42
    (kept,) = cache.iterdir()
    native.load.cache_clear()
    monkeypatch.setattr(native, "_compile", None)  # not called again
    assert native.load(source, "").answer() == 42
    assert list(cache.iterdir()) == [kept]


def test_another_source_makes_another_file(source, cache):
    native.load(source, "")
    source.write_text("int answer(void) { return 43; }\n")
    native.load.cache_clear()
    assert native.load(source, "").answer() == 43
    assert len(list(cache.iterdir())) == 2


@pytest.mark.parametrize("fault", ["no compiler", "a fault in the source"])
def test_what_cannot_be_built_is_said_once(source, cache, monkeypatch, caplog, fault):
    if fault == "no compiler":
        monkeypatch.setenv("PATH", "")
        monkeypatch.delenv("CC", raising=False)
        reason = "no C compiler: none of cc, gcc, clang is on the PATH"
    else:
        source.write_text("int answer(void) { return }\n")
        reason = "answer.c"
    with caplog.at_level(logging.WARNING):
        assert native.load(source, "done slowly") is None
        assert native.load(source, "done slowly") is None
    (record,) = caplog.records
    assert reason in record.getMessage()
    assert record.getMessage().endswith("; done slowly")
    assert not cache.exists() or not list(cache.iterdir())


def test_a_cache_that_cannot_be_used_costs_nothing_but_the_building(source, cache):
    cache.parent.mkdir()
    cache.write_text("a file in the folder's place")
    assert native.load(source, "").answer() == 42


def test_a_damaged_library_is_not_used(source, cache):
    native.load(source, "")
    (kept,) = cache.iterdir()
    content = kept.read_bytes()
    kept.unlink()  # not overwritten: this process has it mapped
    kept.write_bytes(content[:100])
    native.load.cache_clear()
    assert native.load(source, "").answer() == 42


def test_importing_builds_nothing(cache):
    code = "import trainrig.models.resnet, optimizer_quality.models, deepobs.pytorch.testproblems"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert not cache.exists()


def test_the_passes_compile_without_a_warning(tmp_path):
    command = [native.find_compiler() or "cc", *native.FLAGS, "-Wall", "-Wextra", "-Werror"]
    subprocess.run([*command, "-o", str(tmp_path / "passes.so"), str(SOURCE)], check=True)
