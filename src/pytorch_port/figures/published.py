"""Accuracies published for in-context learning on Omniglot sequences.

Source: Chan et al., "Data Distributional Properties Drive Emergent In-Context Learning in
Transformers", NeurIPS 2022 (arXiv 2205.05055). No table of numbers was published: every value was
read off the figures by eye, and is good to about ``READ_ERROR``. In-context accuracy is the
paper's: the argmax over the two labels of the context (our ``accuracy_closed``), chance 0.5.
In-weights accuracy is that of trained classes whose label is absent from the context.

Setting: transformer of 12 layers, width 64; ResNet on 105-px Omniglot; batches of 32, Adam without
weight decay, one run per curve. Class counts there are *training* classes; in our sweeps they are
all partitioned classes (trained and holdout).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Literal

SOURCE = "Chan et al. 2022 (arXiv 2205.05055), read off plots"
CITATION = "Chan et al. 2022"
READ_ERROR = 0.02

Regime = Literal["in_context", "in_weights"]


@dataclass(frozen=True, slots=True)
class Curve:
    """One published curve.

    Attributes:
        figure: where it stands in the paper.
        regime: ``in_context`` (holdout classes) or ``in_weights`` (trained classes).
        class_count: training classes.
        p_bursty: share of bursty training sequences.
        points: readings (optimizer step, accuracy in [0, 1]), ascending; nothing else.
    """

    figure: str
    regime: Regime
    class_count: int
    p_bursty: float
    points: tuple[tuple[int, float], ...]

    def at(self, step: int) -> float | None:
        """Return the accuracy at ``step``, linear between readings, ``None`` outside of them."""
        for (s0, a0), (s1, a1) in itertools.pairwise(self.points):
            if s0 <= step <= s1:
                return a0 + (a1 - a0) * (step - s0) / (s1 - s0)
        return None


def _curve(
    figure: str, regime: Regime, class_count: int, p_bursty: float, points: dict[int, float]
) -> Curve:
    thousands = tuple((1000 * step, accuracy) for step, accuracy in points.items())
    return Curve(figure, regime, class_count, p_bursty, thousands)


#: Fig. 2: 1600 classes, share of bursty sequences varied. First in-context point: the early peak.
#: Steps are in thousands.
FIGURE2 = (
    _curve("2", "in_context", 1600, 0.0, {500: 0.50}),
    _curve("2", "in_context", 1600, 0.5, {40: 0.65, 500: 0.54}),
    _curve("2", "in_context", 1600, 0.9, {40: 0.74, 500: 0.67}),
    _curve("2", "in_context", 1600, 1.0, {100: 0.78, 500: 0.77}),
    _curve("2", "in_weights", 1600, 0.0, {100: 0.38, 200: 0.73, 300: 0.86, 500: 0.91}),
    _curve("2", "in_weights", 1600, 0.5, {100: 0.17, 200: 0.45, 300: 0.62, 500: 0.79}),
    _curve("2", "in_weights", 1600, 0.9, {100: 0.02, 200: 0.07, 300: 0.13, 500: 0.25}),
    _curve("2", "in_weights", 1600, 1.0, {100: 0.0, 200: 0.0, 300: 0.0, 500: 0.0}),
)

#: Fig. 3: class count varied at p_bursty 0.9. Only these three counts were published. Where the
#: curves leave the axis on the left (0.58 with 1600 classes) no step can be read, so that there is
#: no value before the first of these steps.
FIGURE3 = (
    _curve("3", "in_context", 100, 0.9, {60: 0.5, 100: 0.5, 200: 0.5, 300: 0.5, 500: 0.5}),
    _curve(
        "3",
        "in_context",
        1600,
        0.9,
        {60: 0.78, 100: 0.77, 200: 0.74, 300: 0.71, 500: 0.66},
    ),
    _curve(
        "3",
        "in_context",
        12800,
        0.9,
        {30: 0.5, 60: 0.70, 100: 0.76, 200: 0.88, 300: 0.91, 500: 0.93},
    ),
    _curve(
        "3",
        "in_weights",
        100,
        0.9,
        {50: 0.96, 100: 0.98, 200: 0.99, 300: 0.99, 400: 0.99, 500: 0.99},
    ),
    _curve(
        "3",
        "in_weights",
        1600,
        0.9,
        {50: 0.0, 100: 0.02, 200: 0.08, 300: 0.14, 400: 0.2, 500: 0.26},
    ),
    _curve(
        "3", "in_weights", 12800, 0.9, {50: 0.0, 100: 0.0, 200: 0.0, 300: 0.0, 400: 0.0, 500: 0.0}
    ),
)

#: Fig. 5: one drawing per class plus pixel noise of this scale ("full": all drawings) -> p_bursty
#: -> (in-context, in-weights) at the end of training; None where only a bound (>= 0.97) is known.
FIGURE5: dict[float | str, dict[float, tuple[float, float | None]]] = {
    0.0: {0.5: (0.50, None), 0.9: (0.50, None), 1.0: (0.50, None)},
    0.1: {0.5: (0.50, 1.0), 0.9: (0.50, 1.0), 1.0: (0.88, 0.05)},
    0.5: {0.5: (0.50, 0.99), 0.9: (0.66, 0.94), 1.0: (0.93, 0.0)},
    "full": {0.5: (0.54, 0.78), 0.9: (0.66, 0.27), 1.0: (0.77, 0.0)},
}

#: Fig. 6: 12,800 classes at p_bursty 0.9, mean over steps 400k-500k: Zipf exponent ->
#: (in-context on holdout classes, in-weights on the 10 most frequent, in-weights on rare classes).
FIGURE6 = {
    0.0: (0.72, 0.05, 0.0),
    0.5: (0.84, 0.13, 0.0),
    1.0: (0.88, 0.94, 0.01),
    1.5: (0.50, 1.00, 0.0),
    2.0: (0.50, 0.99, 0.0),
    3.0: (0.50, 0.74, 0.0),
}


#: Fig. 7: best settings of each model at 1600 classes: (peak, end of training) of in-context
#: accuracy, each as a range over settings. One LSTM had a short blip to 0.58.
FIGURE7 = {
    "transformer": ((0.75, 0.85), (0.58, 0.66)),
    "lstm": ((0.50, 0.58), (0.50, 0.50)),
    "vanilla_rnn": ((0.50, 0.50), (0.50, 0.50)),
}


def figure3_curve(regime: Regime, class_count: int) -> Curve | None:
    """Return the curve of Fig. 3 for a class count, or ``None`` where none was published."""
    for curve in FIGURE3:
        if (curve.regime, curve.class_count) == (regime, class_count):
            return curve
    return None
