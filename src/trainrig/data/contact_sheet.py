"""A page of drawings to look at: the procedural glyphs beside real Omniglot.

Command (Omniglot is shown if it lies under the data root):
    python -m trainrig.data.contact_sheet docs/images/glyphs.png
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from trainrig.cli import Parser, entry
from trainrig.data.image_bank import ImageBank

_GAP_PX = 2


def sheet(bank: ImageBank, n_classes: int = 12, n_exemplars: int = 8, seed: int = 0) -> np.ndarray:
    """Tile drawings at 28 px, one class per row: float32 (rows, columns), background 1.

    The classes are drawn at random from ``seed``; the exemplars are the first of each.
    """
    rows = np.random.default_rng(seed).permutation(bank.n_classes)[:n_classes]
    side = 28
    page = np.full(
        (n_classes * (side + _GAP_PX) + _GAP_PX, n_exemplars * (side + _GAP_PX) + _GAP_PX),
        0.75,
        np.float32,
    )
    for i, row in enumerate(rows):
        drawings = shown(bank, int(row), n_exemplars)
        for j, drawing in enumerate(drawings):
            top, left = (_GAP_PX + k * (side + _GAP_PX) for k in (i, j))
            page[top : top + side, left : left + side] = drawing
    return page


def shown(bank: ImageBank, row: int, n_exemplars: int) -> np.ndarray:
    """Return the first exemplars of one class as the model sees them, float32 (n, 28, 28)."""
    from trainrig.data.image_bank import downsample_images, to_float

    images = bank.images[row, :n_exemplars]
    small = to_float(images) if images.shape[-1] == 28 else downsample_images(images)
    return small.numpy()


def save_contact_sheet(banks: Sequence[tuple[str, ImageBank]], path: Path) -> None:
    """Draw one sheet per (title, bank) side by side into a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.4 * len(banks), 6.9), dpi=120, layout="constrained")
    axes = figure.subplots(1, len(banks), squeeze=False)[0]
    for axis, (title, bank) in zip(axes, banks, strict=True):
        axis.imshow(sheet(bank), cmap="gray", vmin=0.0, vmax=1.0, interpolation="nearest")
        axis.set_title(title, fontsize=10)
        axis.set_axis_off()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


@entry
def main(argv: list[str] | None = None) -> int:
    """Write the sheet; return the exit status."""
    parser = Parser(description="Draw glyphs beside Omniglot, one class per row.")
    parser.add_argument("path", type=Path, help="PNG to write")
    parser.add_argument("--data-dir", default=None, help="folder of data sets (default: data root)")
    parser.add_argument("--seed", type=int, default=0, help="of the glyphs (default: 0)")
    args = parser.parse_args(argv)

    from trainrig.data.glyphs import load_glyphs
    from trainrig.data.omniglot import is_present, load_omniglot

    banks = [("procedural glyphs (synthetic)", load_glyphs(seed=args.seed))]
    if is_present(args.data_dir):
        banks.append(("Omniglot at 28 px", load_omniglot(args.data_dir)))
    save_contact_sheet(banks, args.path)
    print(f"{args.path}: {' | '.join(title for title, _ in banks)}")  # noqa: T201 - the answer
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
