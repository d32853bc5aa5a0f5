"""One CIFAR run from configuration to final files: ``run(config)`` trains, records and resumes.

Everything that can be refused is built before anything is written. Opening, restoring, saving and
ending a run is the core's (``trainrig.recorder``); the loop is ``train.train``.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from optimizer_quality.config import CifarConfig
from optimizer_quality.data import Loaders, make_loaders, save_split_indices
from optimizer_quality.models import ResNet, build_model, count_parameters
from optimizer_quality.train import record_options, train
from optimizer_quality.utils import get_optimizer, save_final_model, set_seed
from trainrig.branching import Branch, find_branch
from trainrig.config import to_dict
from trainrig.device import choose_device, set_precision, set_threads
from trainrig.files import read_json, write_atomically, write_json
from trainrig.optim.needs import needs_of
from trainrig.recorder import Recorder, recorded
from trainrig.run_status import RunResult
from trainrig.runs import check_lengthening, describe_environment
from trainrig.summaries import names_in, run_configs
from trainrig.tracking.metric_log import kept
from trainrig.tracking.tracker import Tracker, check_tracker

FINAL_FILES = ("final_model.pt", "metrics.json", "timing.json", "split_indices.json")
#: The key of a run's length: a finished run may become longer, since its images do not depend on
#: it, and its learning rate is constant or the optimizer's.
LENGTH = "num_epochs"


@dataclass(frozen=True, kw_only=True, slots=True)
class Runtime:
    """What may differ between two processes that give the same numbers.

    Attributes:
        threads: torch threads; None is one.
        overwrite: start over in a directory that holds a run.
        tracker: where rows are shown live, see ``trainrig.tracking.tracker``.
        quiet: print nothing.
        force_engine_change: let unfinished runs of a sweep change over to other packs.
    """

    threads: int | None = None
    overwrite: bool = False
    tracker: str = "trackio"
    quiet: bool = False
    force_engine_change: bool = False

    def __post_init__(self) -> None:
        """Refuse a tracker that is unknown, or asked for and absent."""
        check_tracker(self.tracker)


def run(
    config: CifarConfig,
    runtime: Runtime | None = None,
    *,
    path: Path | None = None,
    log_path: Path | None = None,
) -> RunResult:
    """Train ``config`` in ``path``, resuming what is there.

    Args:
        config: the run.
        runtime: what does not change its numbers.
        path: the run directory; default ``{results_dir}/{run_name}``.
        log_path: folder of ``trackio_logs.json``; default ``{log_dir}`` and the name of ``path``.

    Raises:
        ValueError: a bad value, damaged data, or another configuration in ``path``.
        FileNotFoundError: no data.
        CheckpointError: the checkpoint does not fit.
        OSError: the directory cannot be written, or the disk is full.
    """
    if config.engine == "packed":
        raise ValueError("engine: packed trains several runs at once; use a sweep with --pack")
    path = path or place_of(config)
    work = prepare(config, path, runtime or Runtime(), log_path)
    with opened(work) as record:
        if not record.finished:
            sets = (work.loaders.train, work.loaders.val, work.loaders.test)
            train(work.model, *sets, work.optimizer, config, record)
            write_final_files(work, record)
    return record.result


def place_of(config: CifarConfig, base: CifarConfig | None = None) -> Path:
    """Return the directory of a run: named by what differs from ``base``, see ``run_name``.

    A run of the same configuration that lies in the folder under another name is that run.
    """
    folder, name = Path(config.results_dir), config.run_name(base)
    if config.init.run is not None:
        return folder / name
    return folder / names_in(folder, {name: {**config.identity(), "branch": None}})[name]


def shorter_run(config: CifarConfig, path: Path) -> Path | None:
    """Return the longest run beside ``path`` that could become ``config`` by more epochs."""
    if (path / "config.json").exists():
        return None
    own = json.loads(json.dumps({**config.identity(), "branch": None}))
    epochs: dict[str, int] = {}
    for name, other in run_configs(path.parent, lambda found: LENGTH in found)[0].items():
        theirs = {key: other.get(key) for key in own}
        if theirs[LENGTH] < own[LENGTH] and {**theirs, LENGTH: own[LENGTH]} == own:
            epochs[name] = int(other[LENGTH])
    return path.parent / max(epochs, key=epochs.__getitem__) if epochs else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """What a run is made of; all that can be refused has been, and nothing is written.

    Attributes:
        config: the run.
        runtime: what does not change its numbers.
        path: the run directory.
        log_path: folder of ``trackio_logs.json``.
        loaders: its images.
        model: on its device.
        optimizer: over the model's parameters.
        identity: what must be equal for the run to be continued.
        environment: what makes it, for ``environment.json``.
        branch: what it begins from, if that is another run and it has not begun.
    """

    config: CifarConfig
    runtime: Runtime
    path: Path
    log_path: Path
    loaders: Loaders
    model: ResNet
    optimizer: torch.optim.Optimizer
    identity: dict[str, Any]
    environment: dict[str, Any]
    branch: Branch | None


def prepare(
    config: CifarConfig, path: Path, runtime: Runtime, log_path: Path | None = None
) -> Work:
    """Read a run's images and build its network; raises as ``run``."""
    set_precision("fp32")  # bf16 is autocast's
    threads = set_threads(runtime.threads)
    device = resolve_device(config.device, quiet=runtime.quiet)
    set_seed(config.seed)
    loaders = make_loaders(config, device)
    model = make_model(config, loaders.images.train_images.shape[1]).to(device)
    optimizer = get_optimizer(model, config.optimizer)
    identity = {**config.identity(), "device": device.type, "images": loaders.description}
    init = config.init
    branch, begun = find_branch(path, init.run, state=init.state, overwrite=runtime.overwrite)
    if begun is not None:
        identity["branch"] = begun
    if not runtime.overwrite:
        check_lengthening(path, identity, LENGTH, config.optimizer.arguments)
    environment = describe_environment("optimizer_quality", device=str(device), threads=threads)
    return Work(
        config=config,
        runtime=runtime,
        path=path,
        log_path=log_path or Path(config.log_dir) / path.name,
        loaders=loaders,
        model=model,
        optimizer=optimizer,
        identity=identity,
        environment=environment | {"optimizer": needs_of(optimizer).describe()},
        branch=branch,
    )


@contextlib.contextmanager
def opened(work: Work) -> Iterator[Recorder]:
    """Open the run's directory, see ``trainrig.recorder.recorded``; save its split."""
    config, loaders, overwrite = work.config, work.loaders, work.runtime.overwrite
    with recorded(
        work.path,
        work.identity,
        work.environment,
        length=LENGTH,
        overwrite=overwrite,
        branch=work.branch,
        track=lambda _, rows: LiveRows(work, rows),
        **record_options(config, len(loaders.train)),
    ) as record:
        if overwrite:
            for file in [work.path / name for name in FINAL_FILES]:
                file.unlink(missing_ok=True)
        if not record.finished:
            save_split_indices(
                loaders.train_indices,
                loaders.val_indices,
                work.path / "split_indices.json",
                source=loaders.description["source"],
                sha256=loaders.description["content_sha256"],
            )
        yield record


class LiveRows:
    """Shows a run's rows while they come: a tracker, ``trackio_logs.json`` and printed lines.

    Args:
        work: the run.
        rows: those so far.
    """

    def __init__(self, work: Work, rows: Iterable[Mapping[str, Any]]) -> None:
        self._file = work.log_path / "trackio_logs.json"
        self._console_every = 0 if work.runtime.quiet else max(work.config.eval_every, 1)
        project, config = work.config.experiment_name, to_dict(work.config)
        self._head = {"run": work.path.name, "project": project, "config": config}
        stamps = self._read_stamps()
        self._logs = [{"timestamp": stamps.get(_stamp_key(row)), **row} for row in rows]
        self._tracker = Tracker(
            project,
            work.path.name,
            config,
            folder=work.log_path.parent,
            rows=self._logs,
            kind=work.runtime.tracker,
        )

    def _read_stamps(self) -> dict[str, float]:
        try:
            logs = read_json(self._file)["logs"]
            return {_stamp_key(row): row["timestamp"] for row in logs}
        except (OSError, ValueError, KeyError, TypeError):
            return {}  # times of day are a courtesy; the rows themselves are in metrics.jsonl

    def log(self, row: Mapping[str, Any]) -> None:
        """Show a row; an epoch's last one, and that of the test set, also write the file."""
        self._logs.append({"timestamp": time.time(), **kept(row)})
        self._tracker.log(row)
        if row["split"] != "train":
            self._write()
        epoch = row["epoch"]
        if self._console_every and row["split"] == "val" and epoch % self._console_every == 0:
            print(  # noqa: T201 - what a person watches
                f"epoch {epoch}: validation loss {row['loss']:.4f}, "
                f"accuracy {row['accuracy']:.4f}, {row['elapsed']:.1f} s",
                flush=True,
            )

    def _write(self) -> None:
        write_atomically(self._file, json.dumps({**self._head, "logs": self._logs}) + "\n")

    def finish(self) -> None:
        """Write the file, and close the tracker."""
        self._tracker.finish()
        self._write()


def _stamp_key(row: Mapping[str, Any]) -> str:
    return f"{row['epoch']} {row['split']}"


def write_final_files(work: Work, record: Recorder) -> None:
    """Write the final model and the metrics of a run whose last step is saved."""
    config, optimizer, results = work.config, work.optimizer, record.latest
    columns = ("epoch", "split", "loss", "accuracy", "grad_norm")
    metrics = {
        "final": results,
        "history": [{key: row.get(key) for key in columns} for row in record.log.rows()],
        "epochs": config.num_epochs,
        "parameters": count_parameters(work.model),
        "optimizer": {
            "class": f"{type(optimizer).__module__}.{type(optimizer).__qualname__}",
            "lr": float(optimizer.param_groups[0].get("lr", 0.0)),
            "arguments": {
                key: value if isinstance(value, int | float | str | tuple | None) else str(value)
                for key, value in config.optimizer.keywords().items()
            },
        },
    }
    save_final_model(work.model, work.path / "final_model.pt", {"final": results})
    write_json(work.path / "timing.json", {"seconds": record.elapsed})
    write_json(work.path / "metrics.json", metrics)


def resolve_device(name: str, *, quiet: bool = False) -> torch.device:
    """Return the device; plain ``cuda`` falls back to the CPU where torch sees no CUDA device."""
    if name == "cuda" and not torch.cuda.is_available():
        if not quiet:
            print("device: cuda asked for, none seen by torch; running on the CPU")  # noqa: T201
        return torch.device("cpu")
    return choose_device(name)


def make_model(config: CifarConfig, in_channels: int) -> ResNet:
    """Return the configured network with the initial weights that ``config.seed`` determines."""
    set_seed(config.seed)
    return build_model(
        config.model,
        config.num_classes,
        in_channels=in_channels,
        precision=config.precision,
        channels_last=config.channels_last,
    )
