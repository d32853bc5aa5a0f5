"""Image banks kept on disk between runs: one uint8 tensor file and one JSON manifest each.

The manifest holds the key (everything that the pixels depend on), the bank's facts and the hash
of its pixels. It is written last, so a manifest never describes a tensor that is not there, and
the hash is compared on every load, so a damaged tensor is made again instead of used.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from trainrig.data.image_bank import ImageBank, hash_pixels
from trainrig.files import cache_dir, remove_abandoned, write_atomically

FORMAT = 1  # raised when the meaning of a cached file changes
_FACTS = ("source", "synthetic", "sha256", "order", "class_names")

log = logging.getLogger(__name__)


def fetch_bank(
    name: str, key: Mapping[str, Any], build: Callable[[], ImageBank], *, cache: bool = True
) -> ImageBank:
    """Return the bank that belongs to ``key``: from the cache if intact there, else built.

    Args:
        name: start of the file names (``"omniglot"``).
        key: plain JSON values; two inputs that could differ in a pixel must differ here.
        build: makes the bank; called when there is no usable copy.
        cache: False neither reads nor writes files.

    A damaged copy is reported by a warning and built again. A cache folder that cannot be written
    costs a warning, not the run.
    """
    if not cache:
        return build()
    full_key = {"format": FORMAT, **key}
    digest = hashlib.sha256(json.dumps(full_key, sort_keys=True).encode()).hexdigest()[:16]
    folder = cache_dir()
    remove_abandoned(folder)  # of a process killed while it wrote what is whole by now
    tensor_path, manifest_path = (folder / f"{name}-{digest}{end}" for end in (".pt", ".json"))
    if manifest_path.exists():
        try:
            return _read(tensor_path, manifest_path, full_key)
        except (OSError, RuntimeError, ValueError, KeyError, TypeError, EOFError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            log.warning("%s: the cached copy is unusable (%s); making it again", name, reason)
    bank = build()
    try:
        _write(bank, tensor_path, manifest_path, full_key)
    except OSError as error:
        log.warning("%s: cannot be cached in %s (%s); continuing without", name, folder, error)
    return bank


def _read(tensor_path: Path, manifest_path: Path, key: Mapping[str, Any]) -> ImageBank:
    """Return the cached bank, every claim of its manifest checked."""
    manifest = json.loads(manifest_path.read_text(encoding="utf-8"))
    if manifest["key"] != key:
        raise ValueError("its manifest describes other data")
    images = torch.load(tensor_path, weights_only=True)
    if list(images.shape) != manifest["shape"] or hash_pixels(images) != manifest["sha256"]:
        raise ValueError("its pixels are not those of its manifest")
    order = manifest["dictionary_order"]
    return ImageBank(
        images=images,
        class_ids=torch.tensor(manifest["class_ids"]),
        class_names=tuple(manifest["class_names"]),
        dictionary_order=None if order is None else torch.tensor(order),
        **{fact: manifest[fact] for fact in _FACTS if fact != "class_names"},
    )


def _write(bank: ImageBank, tensor_path: Path, manifest_path: Path, key: Mapping[str, Any]) -> None:
    """Store the tensor, then the manifest that vouches for it."""
    order = bank.dictionary_order
    manifest = {
        "key": key,
        **{fact: getattr(bank, fact) for fact in _FACTS},
        "shape": list(bank.images.shape),
        "class_ids": bank.class_ids.tolist(),
        "dictionary_order": None if order is None else order.tolist(),
    }
    write_atomically(tensor_path, lambda file: torch.save(bank.images.contiguous(), file))
    write_atomically(manifest_path, json.dumps(manifest, indent=1))
