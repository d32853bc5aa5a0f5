"""Images and symbols that the experiments train on, each with its provenance.

``load_images`` is the one entry; a new source is one function and one ``register`` line below. What
the sets are, where they are looked for and how they are had: ``trainrig.data.catalogue``. Nothing
here imports torch before images are read.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from trainrig.data.locations import data_root
from trainrig.errors import nearest
from trainrig.registry import Registry

if TYPE_CHECKING:
    from trainrig.data.image_bank import ImageBank

__all__ = ["IMAGE_SOURCES", "check_source", "data_root", "load_images"]

IMAGE_SOURCES = Registry("image source")


@IMAGE_SOURCES.register("files")
def _files(data_dir: str | os.PathLike[str] | None, **options: Any) -> ImageBank:
    from trainrig.data.omniglot import load_omniglot

    return load_omniglot(data_dir, source="files", **options)


@IMAGE_SOURCES.register("torchvision")
def _torchvision(data_dir: str | os.PathLike[str] | None, **options: Any) -> ImageBank:
    from trainrig.data.omniglot import load_omniglot

    return load_omniglot(data_dir, source="torchvision", **options)


@IMAGE_SOURCES.register("tfds")
def _tfds(data_dir: str | os.PathLike[str] | None, **options: Any) -> ImageBank:
    from trainrig.data.omniglot import load_omniglot

    return load_omniglot(data_dir, source="tfds", **options)


@IMAGE_SOURCES.register("synthetic")
def _synthetic(
    data_dir: str | os.PathLike[str] | None, *, cache: bool = True, **_: Any
) -> ImageBank:
    from trainrig.data.glyphs import load_glyphs

    return load_glyphs(cache=cache)


IMAGE_SOURCES.register("omniglot")(_files)


def check_source(source: str) -> None:
    """Refuse a word that names no image source, whether images will be read or not.

    Raises:
        ValueError: naming the nearest one and all that are accepted.
    """
    known = sorted([*IMAGE_SOURCES, "auto"])
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
            the caller allows them. Damaged files are an error, never a reason to fall back.
        data_dir: folder of data sets, see ``data_root``; the glyphs need none.
        allow_synthetic: what ``auto`` may do without Omniglot.
        options: ``split``, ``order``, ``complete``, ``download``, ``cache`` of ``load_omniglot``;
            the glyphs have neither splits nor files and use ``cache`` only.

    Raises:
        FileNotFoundError: no data; one line names the expected path and the ways out.
        ValueError: an unknown source, or damaged data.
    """
    check_source(source)
    if source == "auto":
        from trainrig.data.omniglot import is_present

        found = is_present(data_dir) or options.get("download", False)
        source = "synthetic" if allow_synthetic and not found else "files"
    return IMAGE_SOURCES[source](data_dir, **options)
