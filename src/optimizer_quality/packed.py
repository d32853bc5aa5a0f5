"""Several runs of one optimizer and network as one program: seeds, learning rates, weight decays.

The members' networks are stacked (``trainrig.vectorized``) and stepped together; each keeps its own
images, order, optimizer state, logs, checkpoints and final files, and is validated alone. The
numbers equal those of separate runs up to rounding. A member whose loss is no longer finite ends as
``diverged``, the others go on. A pack that is asked to stop does so after its step.

Legend: R members, B images per batch, K classes.
"""

from __future__ import annotations

import itertools
import shutil
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from optimizer_quality.config import CifarConfig
from optimizer_quality.experiment import opened
from optimizer_quality.session import Runtime, Session, prepare
from optimizer_quality.train import check_finite, close_epoch, validate
from trainrig.checkpoint import common_step, list_checkpoints
from trainrig.errors import DivergedError
from trainrig.optim import resolve_optimizer
from trainrig.run_status import FINAL
from trainrig.stopping import Interruption
from trainrig.vectorized import Stack, StackedOptimizer
from trainrig.vectorized.optim import ELEMENTWISE


def check_packable(config: CifarConfig) -> None:
    """Refuse what cannot be packed, before anything is read.

    Raises:
        ValueError: an optimizer that does not treat every value alone.
    """
    name = config.optimizer.type
    if resolve_optimizer(name) not in ELEMENTWISE:
        accepted = ", ".join(sorted(known.__name__.lower() for known in ELEMENTWISE))
        raise ValueError(f"optimizer {name!r}: cannot be packed (accepted: {accepted}); --pack 1")


def run_pack(places: Sequence[tuple[CifarConfig, Path]], runtime: Runtime) -> str:
    """Train all runs together, each in its own directory, resuming what is there.

    A run that has ended already is left as it is.

    Args:
        places: configuration and run directory of each member. They may differ in ``seed`` and in
            the settings of their optimizer.
        runtime: of all members.

    Returns:
        ``complete`` if all members are, else ``diverged``.

    Raises:
        ValueError: as ``experiment.run``.
    """
    with ExitStack() as stack:
        sessions = []
        for config, path in places:
            logs = path / "logs"
            parts = stack.enter_context(opened(config, runtime, path, logs))
            session = prepare(parts, logs, config, runtime)
            stack.enter_context(session.watched())
            sessions.append(session)
        ended = [r for r, one in enumerate(sessions) if one.directory.status()["status"] in FINAL]
        running = [one for r, one in enumerate(sessions) if r not in ended]
        if running:
            _start_together(running)
            _train(sessions, ended, running[0].tracker.start_epoch)
        statuses = {session.directory.status()["status"] for session in sessions}
    return "complete" if statuses == {"complete"} else "diverged"


def _start_together(sessions: Sequence[Session]) -> None:
    """Resume members from the newest step of which all have a valid checkpoint."""
    folders = [session.directory.checkpoints for session in sessions]
    common, ignored = common_step(folders, len(sessions[0].loaders.train))
    for session, messages in zip(sessions, ignored, strict=True):
        session.warn(messages)
        for step, path in list_checkpoints(session.directory.checkpoints):
            if step > common:  # killed between two members' checkpoints, or damaged
                shutil.rmtree(path)
    for session in sessions:
        session.start()


def _train(sessions: Sequence[Session], ended: Sequence[int], start_epoch: int) -> None:
    """Train, validate and finish all members that stay finite.

    Members that ended before keep their places: in a smaller pack the others would meet other
    rounding.
    """
    pack, config = Pack(sessions), sessions[0].config
    pack.optimizer.freeze(ended)
    results = [session.tracker.last_results() for session in sessions]
    for epoch in range(start_epoch + 1, config.num_epochs + 1):
        started, asked = time.perf_counter(), None
        trained = pack.train_one_epoch(epoch)
        for r, session in enumerate(sessions):
            if pack.optimizer.frozen[r]:
                continue
            parts = (session.model, session.loaders.val, session.optimizer)
            try:
                check_finite(trained[r]["loss"], epoch, "training")
                results[r] = close_epoch(
                    trained[r], started, epoch, *parts, session.config, session.tracker
                )
            except DivergedError as error:
                pack.optimizer.freeze([r])
                session.diverge(str(error))
            except Interruption as request:
                asked = request  # the other members save this epoch first
        if asked is not None:
            raise asked
    for r, session in enumerate(sessions):
        if not pack.optimizer.frozen[r]:
            test = validate(session.model, session.loaders.test, nn.CrossEntropyLoss(), pack.device)
            session.finish({**results[r], "test": test})


@dataclass(frozen=True, slots=True)
class MemberPass:
    """One member's share of a pass within which a pack stops; as ``train.EpochPass``."""

    epoch: int
    step: int
    sums: Tensor
    norms: Tensor
    model: nn.Module
    optimizer: torch.optim.Optimizer

    def state(self) -> dict[str, Any]:
        """Return the sums so far, for a checkpoint within the epoch."""
        return {"steps": self.step, "sums": self.sums, "norms": self.norms}


class Pack:
    """The members' networks and optimizers as one.

    Args:
        sessions: prepared and started members.
    """

    def __init__(self, sessions: Sequence[Session]) -> None:
        self.sessions = sessions
        self.loaders = [session.loaders.train for session in sessions]
        self.stack = Stack([session.model for session in sessions])
        self.optimizer = StackedOptimizer(self.stack, [session.optimizer for session in sessions])
        self.device = self.stack.flat.device
        self.layers: dict[str, list[str]] = {}
        for name in self.stack.slots:
            self.layers.setdefault(name.rpartition(".")[0], []).append(name)

    def train_one_epoch(self, epoch: int) -> list[dict[str, Any]]:
        """Perform the rest of a pass of every member.

        Returns:
            What ``train.train_one_epoch`` does, of each.

        Raises:
            Interruption: a member was asked to stop; the checkpoints of all are written.
        """
        self.stack.train()
        sums, norms, steps = self._begin()
        for loader in self.loaders:
            loader.set_epoch(epoch)
        remaining = (itertools.islice(loader, steps, None) for loader in self.loaders)
        for batches in zip(*remaining, strict=True):
            images, labels = (torch.stack(parts) for parts in zip(*batches, strict=True))
            self.optimizer.zero_grad()
            # Grouped convolutions have members and channels in one axis: no channels_last here.
            logits = self.stack(images.contiguous())  # (R, B, K)
            losses = nn.functional.cross_entropy(
                logits.flatten(0, 1), labels.flatten(), reduction="none"
            ).view_as(labels)
            losses.mean(dim=1).sum().backward()
            correct = (logits.detach().argmax(dim=2) == labels).sum(dim=1)
            count = torch.full_like(correct, labels.shape[1])
            sums += torch.stack([losses.detach().double().sum(dim=1), correct, count])
            norms += self._gradient_norms()
            self.optimizer.step()
            steps += 1
            if steps < len(self.loaders[0]):
                self._stop_if_asked(epoch, steps, sums, norms)
        self.optimizer.write_members()
        return self._results(sums, norms / steps, steps)

    def _begin(self) -> tuple[Tensor, Tensor, int]:
        """Return the sums (3, R), norms (R, layers + 1) and steps that a pass goes on from."""
        kind: dict[str, Any] = {"dtype": torch.float64, "device": self.device}
        sums = torch.zeros(3, len(self.stack), **kind)
        norms, steps = torch.zeros(len(self.stack), len(self.layers) + 1, **kind), 0
        for r, session in enumerate(self.sessions):
            partial, session.tracker.partial = session.tracker.partial, None
            if partial is not None:  # of all members or of none
                sums[:, r], norms[r], steps = partial["sums"], partial["norms"], partial["steps"]
        return sums, norms, steps

    def _stop_if_asked(self, epoch: int, steps: int, sums: Tensor, norms: Tensor) -> None:
        due = [s for s in self.sessions if s.directory.stop.due()]  # a signal reaches one of them
        if not due:
            return
        self.optimizer.write_members()
        for r, session in enumerate(self.sessions):
            if not self.optimizer.frozen[r]:
                parts = (session.model, session.optimizer)
                member = MemberPass(epoch, steps, sums[:, r], norms[r], *parts)
                session.tracker.save_within(member)
        raise due[0].tracker.interruption(epoch, steps)

    def _gradient_norms(self) -> Tensor:
        """Return each member's gradient norm by layer, then of all, (R, layers + 1)."""
        gradient = self.stack.flat.grad
        assert gradient is not None  # of the step just done
        squares = []
        for names in self.layers.values():
            slots = [self.stack.slots[name] for name in names]
            parts = [gradient[:, slot.start : slot.start + slot.room] for slot in slots]
            layer = [torch.linalg.vector_norm(part, dim=1).double().square() for part in parts]
            squares.append(torch.stack(layer).sum(dim=0))
        by_layer = torch.stack(squares, dim=1)
        return torch.cat([by_layer, by_layer.sum(dim=1, keepdim=True)], dim=1).sqrt()

    def _results(self, sums: Tensor, norms: Tensor, steps: int) -> list[dict[str, Any]]:
        results = []
        for (loss, correct, count), (*layers, total) in zip(
            sums.T.tolist(), norms.tolist(), strict=True
        ):
            results.append(
                {
                    "loss": loss / count,
                    "accuracy": correct / count,
                    "steps": steps,
                    "grad_norm": total,
                    "grad_norm_by_layer": dict(zip(self.layers, layers, strict=True)),
                }
            )
        return results
