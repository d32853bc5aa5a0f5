"""Loss and the thirteen scalars of the ICL experiments.

Legend: B batch, L items, T positions (2L-1, or L with concatenated labels), K classes.

Targets follow the reference: label, 0, label, 0, ..., label over T positions. The *query* is the
last position, the *interim* ones are 0, 2, ..., T-3. With ``w = w_interim`` and n interim
positions the loss is ``(1-w)·CE(query) + (w/n)·sum CE(interim)``, averaged over sequences.

The names mislead in three places, kept because logs are compared with the reference's:

* ``loss_query`` and ``loss_interim`` are means of the already *weighted* losses;
* interim scalars are 0 when w = 0, and ``accuracy_closed`` is 0 for ``mixed`` sequences;
* with concatenated labels the ``from_support`` scalars still read every second target only.

Source: icl reference, ``experiment/experiment.py``.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - torch's customary name
from torch import Tensor

from pytorch_port.data.label_sets import LabelSets

SCALARS = (
    "loss",
    "loss_query",
    "loss_interim",
    "accuracy_query",
    "accuracy_interim",
    "accuracy_closed",
    "from_common",
    "from_rare",
    "from_fewshot",
    "from_support",
    "from_support_common",
    "from_support_rare",
    "from_support_fewshot",
)


def make_targets(labels: Tensor, *, concatenate_labels: bool = False) -> Tensor:
    """Return targets (B, T) of labels (B, L): zeros between them unless concatenated."""
    if concatenate_labels:
        return labels
    target = labels.new_zeros(labels.shape[0], 2 * labels.shape[1] - 1)
    target[:, ::2] = labels
    return target


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Return per-position losses of logits (..., K) and targets (...).

    A target outside 0..K-1 counts as zero loss, as the reference's one-hot encoding makes it; the
    training loss (:func:`icl_loss` with w = 0) raises instead.
    """
    valid = (target >= 0) & (target < logits.shape[-1])
    log_p = F.log_softmax(_full(logits), dim=-1)
    picked = log_p.gather(-1, torch.where(valid, target, 0).unsqueeze(-1)).squeeze(-1)
    return torch.where(valid, -picked, 0.0)


def _full(logits: Tensor) -> Tensor:
    """Return at least float32: losses are never computed in half precision."""
    return logits if logits.dtype == torch.float64 else logits.float()


def icl_loss(
    logits: Tensor, labels: Tensor, w_interim: float = 0.0, *, concatenate_labels: bool = False
) -> Tensor:
    """Return the training loss (scalar).

    Args:
        logits: (B, T, K); with w = 0 the query's alone, (B, 1, K), do as well.
        labels: int64 (B, L).
        w_interim: weight of the interim predictions, 0..1.
        concatenate_labels: the model's setting.

    Raises:
        ValueError: a weight outside 0..1, or interim predictions that do not exist.
        IndexError: a query label outside 0..K-1 (on CPU).
    """
    if w_interim == 0.0:
        return F.cross_entropy(_full(logits[:, -1]), labels[:, -1])
    target = make_targets(labels, concatenate_labels=concatenate_labels)
    query, interim = _weighted_losses(logits, target, w_interim, concatenate_labels)
    return (query + interim.sum(dim=1)).mean()


def _weighted_losses(
    logits: Tensor, target: Tensor, w_interim: float, concatenate_labels: bool
) -> tuple[Tensor, Tensor]:
    """Return the weighted losses of the query (B,) and of the interim positions (B, n)."""
    if not 0.0 <= w_interim <= 1.0:
        raise ValueError(f"w_interim: {w_interim} is out of range; give a number from 0 to 1")
    query = cross_entropy(logits[:, -1], target[:, -1])
    if w_interim == 0.0:
        return query, query.new_zeros(query.shape[0], 1)
    if concatenate_labels:
        raise ValueError("w_interim: not defined for concatenated labels; set it to 0")
    if logits.shape[1] != target.shape[1]:
        raise ValueError(
            f"w_interim: {w_interim} needs logits at all {target.shape[1]} positions, not "
            f"{logits.shape[1]}; call the model with query_only=False"
        )
    interim = cross_entropy(logits[:, :-2:2], target[:, :-2:2])  # (B, n)
    return (1.0 - w_interim) * query, (w_interim / interim.shape[1]) * interim


def closed_set(sets: LabelSets, seq_type: str) -> Tensor | None:
    """Return the mask (K,) of labels ``accuracy_closed`` chooses from; None for ``mixed``.

    Raises:
        ValueError: an unknown sequence type.
    """
    if seq_type == "bursty" or seq_type.startswith("fewshot_"):
        return sets.fewshot
    known = {
        "no_support_common": sets.common,
        "no_support_rare": sets.rare,
        "no_support_zipfian": sets.common | sets.rare,
        "mixed": None,
    }
    if seq_type not in known:
        raise ValueError(
            f"accuracy_closed: unknown sequence type {seq_type!r}; choose bursty, fewshot_*, "
            f"{', '.join(known)}"
        )
    return known[seq_type]


def icl_scalars(
    logits: Tensor,
    target: Tensor,
    sets: LabelSets,
    seq_type: str,
    *,
    w_interim: float = 0.0,
    concatenate_labels: bool = False,
) -> dict[str, Tensor]:
    """Return the 13 scalars of one batch, as tensors on the logits' device (no host sync).

    Args:
        logits: (B, T, K), or (B, 1, K) of the query alone when w = 0.
        target: (B, T) from :func:`make_targets`.
        sets: from :func:`label_sets`, on the same device.
        seq_type: ``bursty``, ``fewshot_*``, ``no_support_*`` or ``mixed``.
        w_interim: see the module's head.
        concatenate_labels: the model's setting.

    Under polysemy, ``no_support_rare`` and ``no_support_zipfian`` count any label of the class as
    right in ``accuracy_query`` and ``accuracy_interim``, and all labels of ``no_support_common``
    move up by n_rare·(X-1), to where training put them.
    """
    logits, sets = logits.detach(), sets.to(logits.device)
    if sets.polysemy > 1 and seq_type == "no_support_common":
        # The reference moves the labels for its accuracies, but not for its loss.
        target = target.clone()
        target[:, :: 1 if concatenate_labels else 2] += sets.n_rare * (sets.polysemy - 1)
    query_losses, interim_losses = _weighted_losses(logits, target, w_interim, concatenate_labels)
    query, wanted = logits[:, -1], target[:, -1]
    predicted = query.argmax(dim=-1)  # (B,)
    zero = query.new_zeros((), dtype=torch.float32)
    scalars = {
        "loss": (query_losses + interim_losses.sum(dim=1)).mean(),
        "loss_query": query_losses.mean(),
        "loss_interim": interim_losses.mean(),
        "accuracy_query": _mean(_right(predicted, wanted, sets, seq_type)),
        "accuracy_interim": zero,
        "accuracy_closed": zero,
    }
    if w_interim > 0.0:
        interim = logits[:, :-2:2].argmax(dim=-1)
        scalars["accuracy_interim"] = _mean(_right(interim, target[:, :-2:2], sets, seq_type))
    allowed = closed_set(sets, seq_type)
    if allowed is not None:
        closed = query.masked_fill(~allowed, float("-inf")).argmax(dim=-1)
        scalars["accuracy_closed"] = _mean(closed == wanted)
    return scalars | _origins(predicted, target, sets)


def _right(predicted: Tensor, wanted: Tensor, sets: LabelSets, seq_type: str) -> Tensor:
    if sets.polysemy > 1 and seq_type in ("no_support_rare", "no_support_zipfian"):
        return predicted // sets.polysemy == wanted // sets.polysemy
    return predicted == wanted


def _origins(predicted: Tensor, target: Tensor, sets: LabelSets) -> dict[str, Tensor]:
    """Return how often the predictions (B,) lie in each label set, and in the context too."""
    in_context = (predicted[:, None] == target[:, :-2:2]).any(dim=1)  # (B,)
    inside = {
        "common": sets.common[predicted],
        "rare": sets.rare[predicted],
        "fewshot": sets.fewshot[predicted],
    }
    return {
        **{f"from_{name}": _mean(hit) for name, hit in inside.items()},
        "from_support": _mean(in_context),
        **{f"from_support_{name}": _mean(hit & in_context) for name, hit in inside.items()},
    }


def _mean(hits: Tensor) -> Tensor:
    return hits.float().mean()
