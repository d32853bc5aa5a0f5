"""One run in several processes (``torchrun``): what a session needs beyond its own part.

Every process trains and evaluates on its rows of each batch; losses and accuracies are averaged, so
that all hold those of whole batches. The first process alone has a folder, logs, and decides
when the run is over.
"""

from __future__ import annotations

from collections.abc import Callable

from deepobs.pytorch.runners.session import Session
from trainrig.distributed import Team
from trainrig.optim.needs import check_shared


def share(session: Session, team: Team) -> None:
    """Let a session draw this process's rows of every batch.

    Raises:
        ValueError: the batch cannot be shared evenly, the problem carries a state from batch to
            batch, or the optimizer evaluates the loss itself: both would differ with the number.
    """
    settings, problem = session.settings, session.problem
    rows = team.share(settings.batch_size)
    if problem.carried_state() is not None:
        raise ValueError(
            f"{settings.testproblem}: carries a state from batch to batch; in one process only, "
            "leave torchrun out"
        )
    check_shared(session.optimizer)
    for loader in problem.data.loaders.values():
        loader.rows = rows
    session.team = team


def equalise(session: Session) -> None:
    """Put the first process's session, as it stands, into the others."""
    team = session.team
    if team is None:
        return
    weights, state = team.told((session.weights(), session.state()))
    if not team.leads:
        session.restore(weights, state)
    team.train(session.optimizer)


def follow(session: Session, train: Callable[[], None]) -> None:
    """Train as the first process does, until it has finished or stopped.

    Raises:
        ChildProcessError: it is gone without a word.
    """
    assert session.team is not None
    with session.team.following():
        equalise(session)
        train()
