"""One run from configuration to final files, and ``runs.csv`` over all of them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import torch

from optimizer_quality.config import CifarConfig
from optimizer_quality.data import make_loaders
from optimizer_quality.session import Parts, Runtime, make_model, prepare
from optimizer_quality.train import train
from optimizer_quality.utils import get_optimizer, set_seed
from trainrig.device import choose_device, set_precision, set_threads
from trainrig.optim.needs import needs_of
from trainrig.run_status import FINAL, RunResult, read_result
from trainrig.runs import describe_environment, open_run
from trainrig.summaries import names_in

FINAL_FILES = ("final_model.pt", "metrics.json", "split_indices.json")


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
    """
    if config.engine == "packed":
        raise ValueError("engine: packed trains several runs at once; use a sweep with --pack")
    runtime = runtime or Runtime()
    path = path or place_of(config)
    log_path = log_path or Path(config.log_dir) / path.name
    with opened(config, runtime, path, log_path) as parts:
        if parts.directory.status()["status"] in FINAL:
            return read_result(path)
        _train_in(parts, log_path, config, runtime)
    return read_result(path)


def place_of(config: CifarConfig, base: CifarConfig | None = None) -> Path:
    """Return the directory of a run: named by what differs from ``base``, see ``run_name``.

    A run of the same configuration that lies in the folder under another name is that run.
    """
    folder, name = Path(config.results_dir), config.run_name(base)
    return folder / names_in(folder, {name: config.identity()})[name]


@contextlib.contextmanager
def opened(config: CifarConfig, runtime: Runtime, path: Path, log_path: Path) -> Iterator[Parts]:
    """Read a run's images and build its network, then lock its directory; raises as ``run``."""
    set_precision("fp32")  # bf16 is autocast's
    threads = set_threads(runtime.threads)
    device = resolve_device(config.device, quiet=runtime.quiet)
    set_seed(config.seed)
    loaders = make_loaders(config, device)
    identity = {**config.identity(), "device": device.type, "images": loaders.description}
    environment = describe_environment("optimizer_quality", device=str(device), threads=threads)
    model = make_model(config, loaders.images.train_images.shape[1]).to(device)
    optimizer = get_optimizer(model, config.optimizer)
    environment |= {"optimizer": needs_of(optimizer).describe()}
    with open_run(path, identity, environment, overwrite=runtime.overwrite) as directory:
        if runtime.overwrite:
            _remove_final_files(path, log_path)
        yield Parts(directory, loaders, model, optimizer)


def resolve_device(name: str, *, quiet: bool = False) -> torch.device:
    """Return the device; plain ``cuda`` falls back to the CPU where torch sees no CUDA device."""
    if name == "cuda" and not torch.cuda.is_available():
        if not quiet:
            print("device: cuda asked for, none seen by torch; running on the CPU")  # noqa: T201
        return torch.device("cpu")
    return choose_device(name)


def _train_in(parts: Parts, log_path: Path, config: CifarConfig, runtime: Runtime) -> None:
    session, loaders = prepare(parts, log_path, config, runtime), parts.loaders
    with session.watched():
        session.start()
        sets = (loaders.train, loaders.val, loaders.test)
        session.finish(train(parts.model, *sets, parts.optimizer, config, session.tracker))


def _remove_final_files(path: Path, log_path: Path) -> None:
    for file in [*(path / name for name in FINAL_FILES), log_path / "trackio_logs.json"]:
        file.unlink(missing_ok=True)
