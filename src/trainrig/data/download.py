"""Fetch one published file: progress bar, size and SHA-256 checked, never a partial file."""

from __future__ import annotations

import hashlib
import urllib.error
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import IO

from trainrig.files import replacing

_CHUNK_BYTES = 1 << 18


@dataclass(frozen=True, slots=True)
class Upstream:
    """A published file: its name, its size in bytes and its SHA-256."""

    name: str
    n_bytes: int
    sha256: str


def download_file(
    url: str,
    path: Path,
    upstream: Upstream,
    *,
    by_hand: Path | None = None,
    timeout_s: float = 30.0,
) -> None:
    """Fetch ``url`` to ``path``; what arrives is renamed into place only when it is proven whole.

    Args:
        url: of the file.
        path: where it is put.
        upstream: what it must be.
        by_hand: the folder to put it into without a network, for the message; default the path's.
        timeout_s: seconds without an answer that are a failure.

    Raises:
        ConnectionError: no answer, or the answer broke off.
        ValueError: another size or hash than published.
        OSError: the folder cannot be written.
    """
    with replacing(path) as temporary:
        with temporary.open("wb") as file:
            try:
                n_bytes, digest = _fetch(url, file, upstream, timeout_s)
            except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError) as error:
                raise ConnectionError(
                    f"{url}: download failed ({getattr(error, 'reason', error)}); check the "
                    f"network, or put {upstream.name} into {by_hand or path.parent} by hand"
                ) from error
        if (n_bytes, digest) != (upstream.n_bytes, upstream.sha256):
            raise ValueError(
                f"{url}: got {n_bytes:,} bytes with SHA-256 {digest}; "
                f"expected {upstream.n_bytes:,} bytes with SHA-256 {upstream.sha256}"
            )


def _fetch(url: str, file: IO[bytes], upstream: Upstream, timeout_s: float) -> tuple[int, str]:
    """Copy the answer into ``file``, no longer than it should be; return its size and SHA-256."""
    from tqdm import tqdm

    digest = hashlib.sha256()
    n_bytes = 0
    with (
        urllib.request.urlopen(url, timeout=timeout_s) as answer,
        tqdm(
            total=upstream.n_bytes, unit="B", unit_scale=True, desc=upstream.name, disable=None
        ) as bar,
    ):
        while n_bytes <= upstream.n_bytes and (chunk := answer.read(_CHUNK_BYTES)):
            file.write(chunk)
            digest.update(chunk)
            n_bytes += len(chunk)
            bar.update(len(chunk))
    return n_bytes, digest.hexdigest()
