"""Images and symbols that the experiments train on, each with its provenance.

``load_images`` returns the images of a source by class. What sets there are, where they are looked
for and how they are read: ``trainrig.data.catalogue``. Nothing here imports torch before images are
read.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from trainrig.data import catalogue
from trainrig.data.locations import data_root
from trainrig.errors import nearest

if TYPE_CHECKING:
    from trainrig.data.image_bank import ImageBank

__all__ = ["check_source", "data_root", "load_images"]


def check_source(source: str) -> None:
    """Refuse a word that names no image source, whether images will be read or not.

    Raises:
        ValueError: naming the nearest one and all that are accepted.
    """
    known = sorted({*catalogue.sources(), *catalogue.image_sets(), "auto"})
    if source not in known:
        raise ValueError(
            f"image source: {source!r} is unknown{nearest(source, known)}; "
            f"accepted are {', '.join(known)}"
        )


def load_images(
    source: str = "auto",
    data_dir: str | os.PathLike[str] | None = None,
    *,
    allow_synthetic: bool = False,
    **options: Any,
) -> ImageBank:
    """Return the image bank of a source.

    Args:
        source: ``omniglot`` (or ``files``), ``torchvision``, ``tfds``, ``synthetic``, or ``auto``:
            Omniglot's files if both parts lie under the data root, else the synthetic glyphs if
            the caller allows them. Damaged files are an error, never a reason to fall back. Or the
            name of any set of labelled images.
        data_dir: folder of data sets, see ``data_root``; drawn sets need none.
        allow_synthetic: what ``auto`` may do without Omniglot.
        options: ``split``, ``order``, ``complete``, ``download``, ``cache`` of ``load_omniglot``;
            a source without splits or files uses those that apply.

    Raises:
        FileNotFoundError: no data; one line names the expected path and the ways out.
        ValueError: an unknown source, or damaged data.
    """
    check_source(source)
    if source == "auto":
        from trainrig.data.omniglot import is_present

        found = is_present(data_dir) or options.get("download", False)
        source = "synthetic" if allow_synthetic and not found else "files"
    banks = catalogue.sources()
    if source in banks:
        return catalogue.load_function(banks[source].banks[source])(data_dir, source, **options)
    from trainrig.data.image_sets import load_bank

    return load_bank(source, data_dir, download=options.get("download", False))
