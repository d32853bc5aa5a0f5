"""One ICL run: ``run(config)`` trains, logs, evaluates, checkpoints and resumes.

Everything that can be refused is built before anything is written. Opening, restoring, saving and
ending a run is the core's (``trainrig.recorder``); what an ICL run records is in ``rows``.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from pytorch_port.config.runtime import Runtime, progress_bar
from pytorch_port.config.schema import IclConfig
from pytorch_port.data.inputs import IclInputs, load_inputs
from pytorch_port.model.assembly import build_icl_model, make_icl_optimizer
from pytorch_port.train.rows import announce, record_options, shown, write_rows
from pytorch_port.train.steps import pass_training_batches, resolve_engine, training_steps
from trainrig.branching import Branch, find_branch
from trainrig.config import apply_overrides, to_dict
from trainrig.device import choose_device, reuse_memory, set_precision, set_threads
from trainrig.distributed import Team, join_team
from trainrig.engine import Chosen, Engine
from trainrig.errors import DivergedError
from trainrig.files import read_json
from trainrig.optim.needs import check_shared, needs_of
from trainrig.recorder import Interruption, Recorder, recorded
from trainrig.run_status import RunResult, has_ended
from trainrig.runs import describe_environment, packing
from trainrig.seeding import make_deterministic, set_seed
from trainrig.turns import Own, Steps, finish


def run(
    config: IclConfig, runtime: Runtime | None = None, *, path: Path | None = None
) -> RunResult:
    """Train ``config`` in the directory ``path``, resuming what is there.

    Under ``torchrun``, process 0 does so and the others train on their shares of its batches.

    Args:
        config: the run.
        runtime: what does not change its numbers.
        path: the run directory; default ``runs/icl_train/<digest of the configuration>``.

    Returns:
        How the run ended; a process that followed another has no ``path`` and wrote nothing.

    Raises:
        ValueError: a bad value, another configuration in ``path``, or a run at work there.
        FileNotFoundError: no images.
        CheckpointError: the newest valid checkpoint does not fit the model.
        OSError: the directory cannot be written, or the disk is full.
    """
    runtime = runtime or Runtime()
    path = path or Path("runs/icl_train") / config_digest(config)
    return finish(run_in_turns(config, runtime, path, lambda: None))


def run_in_turns(config: IclConfig, runtime: Runtime, path: Path, own: Own) -> Steps[RunResult]:
    """Do what ``run`` does, and yield the engine after each step; see ``trainrig.turns``."""
    make_deterministic()
    team = join_team()
    threads = set_threads(runtime.threads)
    device = choose_device(runtime.device)
    set_precision(config.training.precision)
    reuse_memory()
    if team is not None:
        config = for_team(config, team)
    inputs = load_inputs(config, device, data_dir=runtime.data_dir, download=runtime.download)
    model, optimizer = build(config, inputs)
    if team is not None:
        check_shared(optimizer)
    config, chosen = settle_engine(config, path, inputs, model, runtime)
    if team is not None and not team.leads:
        follow(config, inputs, model, optimizer, team, runtime.num_workers)
        return RunResult(path=None, status="complete", step=config.training_steps)
    identity, branch = run_identity(path, config, inputs, overwrite=runtime.overwrite)
    environment = describe_environment("pytorch_port", device=str(device), threads=threads)
    environment |= {
        "engine": chosen.describe(device, streams=runtime.streams),
        "optimizer": needs_of(optimizer).describe(),
    }
    environment |= pack_record(path, (), config, runtime)
    with recorded(
        path,
        identity,
        environment,
        overwrite=runtime.overwrite,
        branch=branch,
        **record_options(config, runtime),
    ) as record:
        passing = pass_training_batches(config, inputs, model)
        start = record.restore(model, passing=passing, optimizer=optimizer)
        announce(record, config, inputs, model, environment["engine"])
        batches = None
        if team is not None:
            team.equalise(model, optimizer, start)
            first = start * config.training.accumulate
            sequences = inputs.training_batches(first, num_workers=runtime.num_workers)
            batches = team.shares(sequences)
        steps = training_steps(
            config,
            inputs,
            model,
            optimizer,
            engine=engine_of(config),
            start_step=start,
            num_workers=runtime.num_workers,
            batches=batches,
        )
        with progress_bar(config, runtime, path.name, start) as bar, dismissing(team, record):
            for step in steps:
                if record.due(step.step):
                    own()
                    write_rows(record, step, config, inputs, model)
                    record.settle(step.step)
                    bar.set_postfix(shown(record), refresh=False)
                bar.update()
                yield chosen.engine
    return record.result


@contextlib.contextmanager
def dismissing(team: Team | None, record: Recorder) -> Iterator[None]:
    """End the processes that follow this one where it stops between two steps."""
    try:
        yield
    except (DivergedError, Interruption):
        if team is not None and record.step < record.total:
            team.dismiss()
        raise


def engine_of(config: IclConfig) -> Engine:
    """Return the engine that a run was given or has chosen."""
    engine = config.training.engine
    assert engine != "auto"  # settled before
    return engine


def for_team(config: IclConfig, team: Team) -> IclConfig:
    """Return ``config`` for several processes, which are trained eagerly.

    Raises:
        ValueError: a batch that cannot be shared evenly, another engine, or dropout: its random
            numbers would depend on the number of processes.
    """
    team.share(config.training.batch_size)
    engine = config.training.engine
    if engine not in ("auto", "eager"):
        raise ValueError(
            f"--engine {engine}: in one process only; use eager, or leave torchrun out"
        )
    embedding, transformer = config.embedding, config.transformer
    for rate in (
        embedding.example_dropout_prob,
        embedding.positional_dropout_prob,
        transformer.dropout_prob,
    ):
        if rate > 0:
            raise ValueError(f"dropout {rate}: in one process only; use 0, or leave torchrun out")
    return apply_overrides(config, {"training.engine": "eager"})


def follow(
    config: IclConfig,
    inputs: IclInputs,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    team: Team,
    num_workers: int,
) -> None:
    """Train on this process's shares of the leader's batches, until it has finished or stopped.

    Raises:
        ChildProcessError: the leader is gone without a word.
    """
    with team.following():
        start = team.equalise(model, optimizer, 0)
        first = start * config.training.accumulate
        batches = team.shares(inputs.training_batches(first, num_workers=num_workers))
        steps = training_steps(config, inputs, model, optimizer, start_step=start, batches=batches)
        for _ in steps:
            pass


def build(config: IclConfig, inputs: IclInputs) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Return the seeded model and its optimizer; built before anything is written.

    Raises:
        ValueError, KeyError: settings that fit neither the images nor the optimizer.
    """
    set_seed(config.seed)
    model = build_icl_model(config, inputs.example_shape).to(inputs.device)
    return model, make_icl_optimizer(config, model)


def settle_engine(
    config: IclConfig,
    path: Path,
    inputs: IclInputs,
    model: nn.Module,
    runtime: Runtime,
    *,
    packed: bool = False,
) -> tuple[IclConfig, Chosen]:
    """Return ``config`` with the engine that ``auto`` stands for: once chosen, a run keeps it.

    Also the engine and why it is this one.

    A pack is trained eagerly; a run that changed over to one keeps the engine in its record.

    Raises:
        ValueError: a named engine that the device, or a pack, does not allow.
    """
    engine: str | None = None
    if packed and config.training.engine not in ("auto", "eager"):
        raise ValueError(
            f"--engine {config.training.engine}: runs one by one; use --pack 1, or --engine eager"
        )
    if config.training.engine == "auto" and not runtime.overwrite:
        with contextlib.suppress(FileNotFoundError, ValueError, LookupError, TypeError):
            engine = read_json(path / "config.json")["training"]["engine"]
    if engine is not None:
        reason = "the run was begun with it"
        with contextlib.suppress(FileNotFoundError, ValueError, LookupError, TypeError):
            reason = read_json(path / "environment.json")["engine"]["reason"]
        chosen = Chosen(cast(Engine, engine), reason)
    elif packed:
        chosen = Chosen("eager", "runs of a pack are one program")
    else:
        chosen = resolve_engine(config, inputs, model)
    return apply_overrides(config, {"training.engine": chosen.engine}), chosen


def config_digest(config: IclConfig) -> str:
    """Return twelve hexadecimal digits that tell a configuration from others.

    >>> config_digest(IclConfig()) == config_digest(IclConfig(seed=1))
    False
    """
    text = json.dumps(to_dict(config), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def run_identity(
    path: Path, config: IclConfig, inputs: IclInputs, *, overwrite: bool = False
) -> tuple[dict[str, Any], Branch | None]:
    """Return what must be equal for a run to be continued: configuration, device type, images.

    Where the run in ``path`` begins from another run, its identity holds the digest of that
    checkpoint, which is returned as well, unless the run has begun already and is not
    overwritten.

    ``auto`` stands there as the source that it chose, so that naming this source continues the run.
    """
    tree, images = to_dict(config), inputs.describe()
    del tree["init"]  # a path; what it led to is in ``branch``
    if tree["data"]["source"] == "auto":
        chosen = {"synthetic": "synthetic", "files": "omniglot"}
        tree["data"]["source"] = chosen.get(images["image_source"], "auto")
    init = config.init
    branch, begun = find_branch(path, init.run, state=init.state, overwrite=overwrite)
    identity = {**tree, "device": inputs.device.type, "images": images}
    return (identity if begun is None else {**identity, "branch": begun}), branch


def pack_record(
    path: Path, pack: Sequence[str], config: IclConfig, runtime: Runtime
) -> dict[str, Any]:
    """Return the record of a run's pack; refuse a change-over, unless it is forced.

    Raises:
        ValueError: the run in ``path``, unfinished or to become longer, was begun otherwise.
    """
    if runtime.overwrite or has_ended(path, config.training_steps):
        return {"pack": list(pack), "pack_changes": []}
    return packing(path, pack, force=runtime.force_engine_change)
