"""A run directory: configuration, lock, status, logs and checkpoints of one training run.

<run>/config.json        the resolved configuration, written before step 1
<run>/environment.json   command line, git revision, versions, device, threads
<run>/status.json        running | complete | diverged | failed | interrupted, with the step reached
<run>/logs/              train.log, progress.txt, metrics.jsonl
<run>/checkpoints/models/latest/step_{k}/
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

from trainrig.checkpoint import list_checkpoints, remove_leftovers
from trainrig.config import diff
from trainrig.device import describe_precision
from trainrig.files import read_json, remove_abandoned, write_json
from trainrig.locks import Held, lock
from trainrig.processes import process_count
from trainrig.run_status import FINAL, read_status, this_process
from trainrig.stopping import Interruption, StopRequest, graceful_stop

LATEST = Path("checkpoints/models/latest")
#: What a run directory holds, in the order of removal: killed between any two, the rest is still a
#: run that its configuration guards. Anything else in it is not ours and is left alone.
OWNED = (
    "status.json",
    "checkpoints",
    "logs",
    "environment.json",
    "config.json",
)
#: What a run's numbers depend on besides its configuration; keys of ``environment.json``.
DECIDING = (
    *("batch_norm", "device", "float32", "processes", "source_sha256", "threads", "versions"),
)
#: Arguments by which optimizers with a schedule of their own are told how long the run is.
LENGTH_ARGUMENTS = frozenset(
    f"{prefix}{unit}"
    for prefix in ("", "num_", "n_", "max_", "total_", "training_", "num_training_")
    for unit in ("steps", "epochs", "iters", "iterations")
) | {"t_max"}
#: Set to 1, a run continues although one of these changed; ``environment.json`` then says so.
FORCE_RESUME = "TRAINRIG_FORCE_RESUME"


class RunDirectory:
    """One run's files. Use ``open_run``, which checks, locks and creates it.

    Attributes:
        stop: whether the run was asked to stop; its loop looks at it after every step.
    """

    def __init__(self, path: Path, stop: StopRequest) -> None:
        self.path, self.stop = path, stop
        self.logs = path / "logs"
        self.checkpoints = path / LATEST

    def status(self) -> dict[str, Any]:
        """Return ``status.json``, or ``{"status": "new"}`` where there is none."""
        return read_status(self.path)

    def set_status(self, status: str, **fields: Any) -> None:
        """Replace ``status.json`` atomically."""
        write_json(self.path / "status.json", {"status": status, **fields})

    def decide(self, **fields: Any) -> None:
        """Record in ``environment.json`` what else decides the numbers, known since the model is.

        Raises:
            ValueError: the run was begun under others, as ``check_environment``.
        """
        file = self.path / "environment.json"
        environment = {**read_json(file), **fields}
        if list_checkpoints(self.checkpoints):
            environment = check_environment(self.path, environment)
        write_json(file, environment)

    def record_stop(self, error: BaseException, **fields: Any) -> None:
        """Write how a run stopped before its end: ``interrupted`` if asked to, else ``failed``."""
        asked = isinstance(error, Interruption | KeyboardInterrupt)
        message = " ".join(str(error).split())
        with contextlib.suppress(OSError):
            self.set_status("interrupted" if asked else "failed", message=message, **fields)


def check_config(
    path: Path,
    config: Mapping[str, Any],
    start_over: str = "--overwrite",
    *,
    partly: bool = False,
    length: str | None = None,
) -> tuple[Any, Any] | None:
    """Refuse a run directory that was made with another configuration.

    Args:
        path: the run directory.
        config: the resolved configuration as plain data.
        start_over: what to do to start over, for the message.
        partly: whether keys that ``config`` lacks may have any value.
        length: dotted key that says how long the run is; it may have become larger.

    Returns:
        The smaller length and the larger one, where only they differ.

    Raises:
        ValueError: naming each key that differs, old -> new; or checkpoints of an unknown one.
    """
    file = path / "config.json"
    if not file.exists():
        if list_checkpoints(path / LATEST):
            raise ValueError(
                f"{file}: missing, but there are checkpoints; restore it, use another output "
                f"directory, or {start_over} to start over"
            )
        return None
    present = read_json(file)
    if not isinstance(present, dict):
        raise ValueError(f"{file}: holds {type(present).__name__}; a configuration is expected")
    if partly:
        present = {key: value for key, value in present.items() if key in config}
    changes = diff(present, config)
    if not changes:
        return None
    if length is not None and len(changes) == 1:
        before, after = (_value_at(tree, length) for tree in (present, config))
        known = isinstance(before, int) and isinstance(after, int)
        if known and before < after:
            return before, after
        if known and before != after:
            raise ValueError(
                f"{path}: holds a run of {before} ({length}), which cannot become {after}; a run "
                "can only become longer. Use another output directory, or "
                f"{start_over} to start over"
            )
    raise ValueError(
        f"{path}: holds a run with another configuration ({'; '.join(changes)}); "
        f"use another output directory, or {start_over} to start over"
    )


def check_lengthening(
    path: Path, config: Mapping[str, Any], length: str, arguments: Mapping[str, Any]
) -> None:
    """Refuse to make a run longer whose optimizer was told how long it is.

    Args:
        path: the run directory.
        config: the resolved configuration as plain data.
        length: dotted key that says how long the run is.
        arguments: of the optimizer.

    Raises:
        ValueError: such a run, or one of another configuration.
    """
    longer = check_config(path, config, length=length)
    told = next((name for name in arguments if name.lower() in LENGTH_ARGUMENTS), None)
    if longer is not None and told is not None:
        raise ValueError(
            f"{path}: cannot go from {longer[0]} to {longer[1]} ({length}), since its optimizer "
            f"was told its length ({told} {arguments[told]}), which its learning rate follows; "
            "start a run of that length in another output directory"
        )


def _value_at(tree: Any, key: str) -> Any:
    """Return the value at a dotted key, None where there is none."""
    for name in key.split("."):
        tree = tree.get(name) if isinstance(tree, dict) else None
    return tree


def check_environment(path: Path, environment: Mapping[str, Any]) -> dict[str, Any]:
    """Refuse to continue a run under other code, versions, threads, processes or kind of device.

    Args:
        path: the run directory, which holds a checkpoint to continue from.
        environment: that of this process.

    Returns:
        The environment to record: with the changes so far, if any were forced.

    Raises:
        ValueError: naming what differs, old -> new, unless ``TRAINRIG_FORCE_RESUME`` is 1.
    """
    file = path / "environment.json"
    before = read_json(file) if file.exists() else {}
    known = [key for key in DECIDING if key in before and key in environment]
    changes = diff(*({key: _kind(of[key]) for key in known} for of in (before, environment)))
    if changes and os.environ.get(FORCE_RESUME) != "1":
        raise ValueError(
            f"{path}: was begun under other conditions ({'; '.join(changes)}); go back to them, or "
            f"set {FORCE_RESUME}=1 to continue, no longer bit for bit"
        )
    history = {
        "forced_changes": [*before.get("forced_changes", []), *changes],
        "lengthened": before.get("lengthened", []),
    }
    # What ``RunDirectory.decide`` adds later is kept until then.
    later = {key: before[key] for key in DECIDING if key in before and key not in environment}
    return {**environment, **later, **{key: value for key, value in history.items() if value}}


def _kind(value: Any) -> Any:
    """Return a device without its number, which changes nothing; anything else as it is."""
    return value.partition(":")[0] if isinstance(value, str) else value


def packing(path: Path, pack: Sequence[str], *, force: bool = False) -> dict[str, Any]:
    """Return what ``environment.json`` says of the pack that a run is trained in.

    A run alone and one in a pack agree within rounding only, so none changes over by itself.

    Args:
        path: the run directory.
        pack: names of the runs that are trained as one program; empty for a run alone.
        force: let an unfinished run change over, and record it.

    Raises:
        ValueError: the run was begun in a pack and would continue alone, or the reverse.
    """
    checkpoints, file = list_checkpoints(path / LATEST), path / "environment.json"
    before = read_json(file) if checkpoints and file.exists() else {}
    changes = before.get("pack_changes", [])
    words = ["packed" if names else "alone" for names in (before.get("pack"), pack)]
    if checkpoints and words[0] != words[1]:
        if not force:
            raise ValueError(
                f"{path}: was begun {words[0]} and would continue {words[1]}; give the same --pack "
                "as before, or --force-engine-change to continue with other rounding"
            )
        step = checkpoints[-1][0]
        changes = [*changes, {"after_step": step, "from": words[0], "to": words[1]}]
    return {"pack": list(pack), "pack_changes": changes}


@contextlib.contextmanager
def open_run(
    path: Path,
    config: Mapping[str, Any],
    environment: Mapping[str, Any],
    *,
    overwrite: bool = False,
    start_over: str = "--overwrite",
    length: str | None = None,
) -> Iterator[RunDirectory]:
    """Create or reopen ``path`` for one writer.

    Args:
        path: the run directory.
        config: the resolved configuration as plain data; must equal the one already there.
        environment: what ``describe_environment`` returns, plus device and threads.
        overwrite: remove an earlier run's files first.
        start_over: what to do to start over, for the message.
        length: dotted key of ``config`` that says how long the run is; a larger value than that
            of the run already there makes it longer, which ``environment.json`` records.

    Raises:
        ValueError: another configuration, another process at work on the run, or an unfinished
            run that was begun under other code, versions, threads or kind of device.
        OSError: the directory cannot be written, or a data-loading process was killed.
    """
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(f"{path}: is a file; give a directory for the run")
    if not overwrite:
        check_config(path, config, start_over, length=length)
    path.mkdir(parents=True, exist_ok=True)
    with locked(path), graceful_stop() as stop:
        if overwrite:
            remove_run(path)
        # Again: another process may have made the run meanwhile.
        longer = check_config(path, config, start_over, length=length)
        remove_abandoned(path)
        remove_leftovers(path / LATEST)
        unfinished = longer is not None or read_status(path)["status"] not in FINAL
        if list_checkpoints(path / LATEST) and unfinished:
            environment = check_environment(path, environment)
        if longer is not None:
            environment = _lengthen(path, config, environment, longer)
        run = RunDirectory(path, stop)
        run.logs.mkdir(exist_ok=True)
        run.checkpoints.mkdir(parents=True, exist_ok=True)
        if not (path / "config.json").exists():
            write_json(path / "config.json", dict(config))
        if unfinished:  # else it would not tell who made the run
            write_json(path / "environment.json", dict(environment))
        with naming_lost_loaders():
            yield run


def _lengthen(
    path: Path, config: Mapping[str, Any], environment: Mapping[str, Any], change: tuple[Any, Any]
) -> dict[str, Any]:
    """Replace a run's configuration by that of a longer one; return the environment to record.

    Raises:
        ValueError: the run has diverged, or its last checkpoint is gone.
    """
    status = read_status(path)["status"]
    if status == "diverged" or (status in FINAL and not list_checkpoints(path / LATEST)):
        why = "has diverged" if status == "diverged" else "has kept no checkpoint"
        raise ValueError(
            f"{path}: the run {why} and cannot go from {change[0]} to {change[1]}; "
            "use another output directory"
        )
    if status in FINAL:  # killed before its first step, the longer run must not seem to have ended
        write_json(path / "status.json", {**read_status(path), "status": "interrupted"})
    record = {"from": change[0], "to": change[1]}
    history = environment.get("lengthened", [])
    if record not in history:  # else killed between the two files
        environment = {**environment, "lengthened": [*history, record]}
    write_json(path / "environment.json", dict(environment))
    write_json(path / "config.json", dict(config))
    return dict(environment)


@contextlib.contextmanager
def naming_lost_loaders() -> Iterator[None]:
    """Make the loss of a data-loading process (often: out of memory) an ``OSError``.

    torch raises a ``RuntimeError`` out of a signal handler, wherever the program happens to be.
    """
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        reason = " ".join(str(error).split())
        raise ChildProcessError(
            f"a data-loading process was killed ({reason}); perhaps memory ran "
            "out; the same command continues from the last checkpoint"
        ) from None


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Be the only writer of the run directory ``path``; the lock dies with the process.

    Raises:
        ValueError: another process is working on the run.
    """
    try:
        with lock(path / ".lock", owner=this_process()):
            yield
    except Held as held:
        raise ValueError(
            f"{path}: another process ({held}) is working on this run; wait for it or stop it"
        ) from None


def remove_run(path: Path) -> None:
    """Remove a run's own files and nothing else."""
    for name in OWNED:
        target = path / name
        if target.is_dir():
            shutil.rmtree(target)
        else:
            target.unlink(missing_ok=True)


def describe_environment(package: str | None = None, **fields: Any) -> dict[str, Any]:
    """Return command line, git revision, library versions and a hash of the code.

    Args:
        package: of the experiment; its source is hashed together with that of the core.
        fields: what else to record, e.g. device and threads.
    """
    versions = {}
    for name in ("torch", "torchvision", "numpy", "trainrig"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return {
        "command": _command(),
        "git_revision": git_revision(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": versions,
        "processes": process_count(),
        "float32": describe_precision(),
        "source_sha256": _source_hash("trainrig", *([package] if package else [])),
        **fields,
    }


def _command() -> list[str]:
    """Return the words of the command line that started this process."""
    program, *words = sys.argv
    if program.startswith("trainrig "):  # a command of a system, see ``trainrig.command``
        return [*program.split(), *words]
    return [Path(sys.executable).name, program, *words]


@lru_cache
def _source_hash(*packages: str) -> str:
    """Return 16 hexadecimal digits over the names and contents of the packages' source files."""
    digest = hashlib.sha256()
    for name in packages:
        spec = importlib.util.find_spec(name)
        assert spec is not None  # the program runs from it
        assert spec.origin is not None
        root = Path(spec.origin).parent
        for file in sorted((*root.rglob("*.py"), *root.rglob("*.c"))):
            digest.update(str(file.relative_to(root)).encode() + file.read_bytes())
    return digest.hexdigest()[:16]


def git_revision() -> str | None:
    """Return the revision of the source tree, with ``+`` for local changes; None outside git."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        revision = subprocess.run(
            [*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True
        ).stdout.strip()
        changed = subprocess.run(
            [*git, "status", "--porcelain", "--untracked-files=no"], capture_output=True, text=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
    return revision + ("+" if changed else "")
