"""Run directories: one writer, one configuration, and nothing half-removed that looks whole."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from trainrig import runs
from trainrig.checkpoint import save_checkpoint
from trainrig.files import read_json, temporary_name, write_json
from trainrig.runs import LATEST, OWNED, check_config, open_run, read_status, remove_run

CONFIG = {"lr": 0.1, "part": {"steps": 3}, "list": [1, 2]}
HOLD_LOCK = """
import os, sys, time
from pathlib import Path
from trainrig.runs import open_run
with open_run(Path(sys.argv[1]), {"lr": 0.1, "part": {"steps": 3}, "list": [1, 2]}, {}):
    if os.fork() == 0:  # like a data-loading process, which outlives its parent for seconds
        print("held", flush=True)
        sys.stdin.read()
        os._exit(0)
    time.sleep(60)
"""


def opened(path, config=CONFIG, **options):
    return open_run(path, config, {"command": ["x"]}, **options)


def tree(path):
    return {p.relative_to(path): p.read_bytes() for p in path.rglob("*") if p.is_file()}


def test_a_new_run_has_its_configuration_before_anything_else(tmp_path):
    with opened(tmp_path / "a" / "b") as run:
        assert run.status() == {"status": "new"}
        assert read_json(run.path / "config.json") == CONFIG
        assert read_json(run.path / "environment.json") == {"command": ["x"]}
        assert run.logs.is_dir()
        assert run.checkpoints.is_dir()
        run.set_status("running", step=3)
    assert read_status(tmp_path / "a" / "b") == {"status": "running", "step": 3}


def test_another_configuration_is_refused_with_each_difference_and_nothing_changes(tmp_path):
    with opened(tmp_path):
        pass
    before = tree(tmp_path)
    other = {"lr": 0.2, "part": {"steps": 3, "new": 1}, "list": [1, 2]}
    with (
        pytest.raises(ValueError, match="another configuration") as caught,
        opened(tmp_path, other),
    ):
        pass
    assert "lr: 0.1 -> 0.2; part.new: (absent) -> 1" in str(caught.value)
    assert "--overwrite" in str(caught.value)
    assert tree(tmp_path) == before
    with opened(tmp_path):
        pass


def test_a_configuration_written_between_check_and_lock_is_seen(tmp_path, monkeypatch):
    lock = runs.locked

    def slow(path):
        (path / "config.json").write_text(json.dumps({**CONFIG, "lr": 9}))
        return lock(path)

    monkeypatch.setattr(runs, "locked", slow)
    with pytest.raises(ValueError, match=r"lr: 9 -> 0\.1"), opened(tmp_path / "run"):
        pass


def test_checkpoints_without_their_configuration_are_refused(tmp_path):
    save_checkpoint(tmp_path / LATEST, 1, {}, {})
    with pytest.raises(ValueError, match=r"config\.json: missing, but there are checkpoints"):
        check_config(tmp_path, CONFIG)
    with opened(tmp_path, overwrite=True) as run:
        assert list(run.checkpoints.iterdir()) == []


@pytest.mark.parametrize("content", ["", "{", "[1]"])
def test_an_unreadable_configuration_is_an_error_that_names_it(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ValueError, match=r"config\.json"), opened(tmp_path):
        pass


def test_a_second_writer_is_refused_by_name_and_harms_nothing(tmp_path):
    with opened(tmp_path) as run:
        run.set_status("running", step=1)
        before = tree(tmp_path)
        with (
            pytest.raises(ValueError, match=f"another process .pid {os.getpid()} on"),
            opened(tmp_path, overwrite=True),
        ):
            pass
        assert tree(tmp_path) == before
    with opened(tmp_path):
        pass


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the run's lock and has a child of its own."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD_LOCK, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()


def test_the_lock_of_another_process_goes_with_it(tmp_path, holder):
    with pytest.raises(ValueError, match=f"pid {holder.pid}"), opened(tmp_path):
        pass
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    with opened(tmp_path):  # although the killed process's child still lives
        pass


def test_leftovers_of_a_killed_writer_are_removed(tmp_path, dead_key):
    checkpoints = tmp_path / LATEST
    checkpoints.mkdir(parents=True)
    (checkpoints / f".step_3.{dead_key}-0.tmp").mkdir()
    tmp_path.joinpath(f".status.json.{dead_key}-0.tmp").write_text('{"sta')
    theirs = temporary_name(tmp_path / "report.html")  # a report that is being written meanwhile
    theirs.write_text("<ht")
    with opened(tmp_path):
        assert list(tmp_path.rglob(".*.tmp")) == [theirs]


def test_overwrite_removes_what_is_ours_and_nothing_else(tmp_path):
    with opened(tmp_path) as run:
        run.set_status("complete")
        (run.logs / "x").write_text("old")
        save_checkpoint(run.checkpoints, 1, {}, {})
    (tmp_path / "notes.md").write_text("mine")
    with opened(tmp_path, {"other": 1}, overwrite=True) as run:
        assert run.status() == {"status": "new"}
        assert list(run.logs.iterdir()) == list(run.checkpoints.iterdir()) == []
        assert read_json(tmp_path / "config.json") == {"other": 1}
    assert (tmp_path / "notes.md").read_text() == "mine"


@pytest.mark.parametrize("removed", range(len(OWNED)))
def test_killed_while_overwriting_is_never_taken_for_a_finished_or_foreign_run(
    tmp_path, monkeypatch, removed
):
    with opened(tmp_path) as run:
        run.set_status("complete")
        save_checkpoint(run.checkpoints, 1, {}, {})
    monkeypatch.setattr(runs, "OWNED", OWNED[: removed + 1])
    remove_run(tmp_path)
    assert read_status(tmp_path)["status"] == "new"
    left = bool(list((tmp_path / LATEST).glob("step_*")))
    assert not left or (tmp_path / "config.json").exists()


def test_the_environment_of_a_finished_run_stays(tmp_path):
    with opened(tmp_path) as run:
        run.set_status("complete")
    with open_run(tmp_path, CONFIG, {"command": ["later"]}):
        assert read_json(tmp_path / "environment.json") == {"command": ["x"]}


def test_a_run_whose_length_is_not_recorded_is_no_run_of_none(tmp_path):
    write_json(tmp_path / "config.json", {"lr": 0.1})
    with pytest.raises(ValueError, match=r"another configuration \(steps: \(absent\) -> 5\)"):
        check_config(tmp_path, {"lr": 0.1, "steps": 5}, length="steps")


@pytest.mark.parametrize(
    "content",
    [
        *("", "nonsense", "[]", '{"step": 3}', '{"status": 3}'),
        '{"status": "complete", "step": "x"}',
        '{"status": "complete", "metrics": [1]}',
    ],
)
def test_an_unreadable_status_counts_as_failed(tmp_path, content):
    (tmp_path / "status.json").write_text(content)
    found = read_status(tmp_path)
    assert found["status"] == "failed"
    assert str(tmp_path / "status.json") in found["message"]


def test_a_path_that_cannot_be_a_directory(tmp_path):
    file = tmp_path / "file"
    file.write_text("x")
    with pytest.raises(NotADirectoryError, match="is a file"), opened(file):
        pass
    with pytest.raises(NotADirectoryError), opened(file / "below"):
        pass
    assert file.read_text() == "x"


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_directory_without_write_permission(tmp_path):
    tmp_path.chmod(0o555)
    with pytest.raises(PermissionError), opened(tmp_path / "run"):
        pass


BEFORE = {"device": "cuda:0", "threads": 1, "source_sha256": "a", "versions": {"torch": "2.8"}}


def begun(path):
    """A run under BEFORE with one checkpoint, not finished."""
    with open_run(path, CONFIG, BEFORE) as run:
        save_checkpoint(run.checkpoints, 1, {}, {})
        run.set_status("interrupted", step=1)
    return tree(path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"device": "cpu"}, "device: cuda -> cpu"),
        ({"threads": 2}, "threads: 1 -> 2"),
        ({"source_sha256": "b"}, "source_sha256: a -> b"),
        ({"versions": {"torch": "2.9"}}, "versions.torch: 2.8 -> 2.9"),
    ],
)
def test_other_conditions_are_refused_with_the_difference_unless_forced(
    tmp_path, monkeypatch, change, said
):
    monkeypatch.delenv(runs.FORCE_RESUME, raising=False)
    before = begun(tmp_path)
    with pytest.raises(ValueError, match=said), open_run(tmp_path, CONFIG, BEFORE | change):
        pass
    assert tree(tmp_path) == before | {Path(".lock"): (tmp_path / ".lock").read_bytes()}
    monkeypatch.setenv(runs.FORCE_RESUME, "1")
    for _ in range(2):  # what was forced once stays on record
        with open_run(tmp_path, CONFIG, BEFORE | change) as run:
            assert read_json(run.path / "environment.json")["forced_changes"] == [said]


def test_another_gpu_of_the_same_kind_and_a_run_without_checkpoints_go_on(tmp_path, monkeypatch):
    monkeypatch.delenv(runs.FORCE_RESUME, raising=False)
    begun(tmp_path / "one")
    with open_run(tmp_path / "one", CONFIG, BEFORE | {"device": "cuda:1"}):
        pass
    for threads in (1, 2):
        with open_run(tmp_path / "two", CONFIG, BEFORE | {"threads": threads}):
            pass


@pytest.mark.parametrize("writes", range(5))
def test_a_run_killed_while_it_becomes_longer_keeps_its_conditions(tmp_path, monkeypatch, writes):
    monkeypatch.delenv(runs.FORCE_RESUME, raising=False)
    longer = CONFIG | {"lr": 1}
    with open_run(tmp_path, CONFIG | {"lr": 0}, BEFORE) as run:
        save_checkpoint(run.checkpoints, 1, {}, {})
        run.set_status("complete", step=1)
    left = iter(range(writes))

    def write_until_killed(path, content):
        next(left)  # StopIteration ends the process
        write_json(path, content)

    with monkeypatch.context() as patched:
        patched.setattr(runs, "write_json", write_until_killed)
        ended = pytest.raises((StopIteration, RuntimeError)) if writes < 4 else nullcontext()
        with ended, open_run(tmp_path, longer, BEFORE, length="lr"):
            pass  # and killed before the first step
    refused = pytest.raises(ValueError, match="threads: 1 -> 2")
    with refused, open_run(tmp_path, longer, BEFORE | {"threads": 2}, length="lr"):
        pass
    with open_run(tmp_path, longer, BEFORE, length="lr") as run:
        environment = read_json(run.path / "environment.json")
        assert environment == BEFORE | {"lengthened": [{"from": 0, "to": 1}]}
        assert read_json(run.path / "config.json") == longer
        assert run.status()["status"] == "interrupted"


def test_what_is_known_with_the_model_decides_as_well(tmp_path, monkeypatch):
    monkeypatch.delenv(runs.FORCE_RESUME, raising=False)
    with open_run(tmp_path, CONFIG, BEFORE) as run:
        run.decide(batch_norm="operators")
        run.decide(batch_norm="compiled")  # nothing was trained yet
        save_checkpoint(run.checkpoints, 1, {}, {})
    with open_run(tmp_path, CONFIG, BEFORE) as run:
        assert read_json(run.path / "environment.json") == BEFORE | {"batch_norm": "compiled"}
        with pytest.raises(ValueError, match="batch_norm: compiled -> operators"):
            run.decide(batch_norm="operators")
        monkeypatch.setenv(runs.FORCE_RESUME, "1")
        run.decide(batch_norm="operators")
    forced = {"batch_norm": "operators", "forced_changes": ["batch_norm: compiled -> operators"]}
    assert read_json(tmp_path / "environment.json") == BEFORE | forced


def test_the_hash_of_the_code_follows_the_code(tmp_path, monkeypatch):
    (tmp_path / "pack_age").mkdir()
    source = tmp_path / "pack_age" / "__init__.py"
    source.touch()
    monkeypatch.syspath_prepend(tmp_path)
    hashes = []
    for text in ("", "one = 1\n", ""):
        source.write_text(text)
        runs._source_hash.cache_clear()
        hashes.append(runs.describe_environment("pack_age")["source_sha256"])
    assert hashes[0] == hashes[2] != hashes[1]
    assert runs.describe_environment()["source_sha256"] != hashes[0]
    (tmp_path / "pack_age" / "passes.c").touch()  # compiled at its first use
    runs._source_hash.cache_clear()
    assert runs.describe_environment("pack_age")["source_sha256"] != hashes[0]
