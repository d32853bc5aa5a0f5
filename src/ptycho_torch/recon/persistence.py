"""The bundle ``wts.h5.zip``: weights and parameters of both models, without pickle.

Members: ``manifest.json`` (version, backend, models, SHA-256 of every other member) and per model
``model.pth`` (tensors only) and ``params.json``. Loading checks the digests, rebuilds the
architecture from the stored configurations and loads strictly. Archives of the TensorFlow backend
are recognised and refused; pickled parameters are read only when the caller trusts the archive.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import zipfile
from pathlib import Path
from typing import Any

import torch

from ptycho_torch.model import CONFIG_CLASSES, PtychoPINN_Lightning, plain
from trainrig.errors import CheckpointError
from trainrig.files import reading, write_atomically

logger = logging.getLogger(__name__)

BUNDLE_NAME = "wts.h5.zip"
BUNDLE_VERSION = "2.0-pytorch"
MODELS = ("autoencoder", "diffraction_to_obj")
PLACES = ("output_prefix", "model_path")  # where things lie: no part of the model
GENERATOR_KEYS = ("net.generator.", "net.log_scale", "input_factor", "intensity_scale")


def _tensors(state: dict[str, torch.Tensor]) -> bytes:
    buffer = io.BytesIO()
    torch.save({key: value.detach().cpu().contiguous() for key, value in state.items()}, buffer)
    return buffer.getvalue()


def save_bundle(
    model: PtychoPINN_Lightning, folder: str | Path, params: dict[str, Any] | None = None
) -> Path:
    """Write ``<folder>/wts.h5.zip``; its bytes depend only on the model and the parameters.

    Args:
        model: a trained model; the trained scale is what is stored.
        folder: created if needed.
        params: flat dictionary to keep beside the configurations.
    """
    state = model.state_dict()
    configs = {name: plain(getattr(model, name)) for name in CONFIG_CLASSES}
    scale = float(torch.exp(model.net.log_scale.detach()))
    kept = {k: v for k, v in (params or {}).items() if k not in PLACES}
    stored = {
        "configs": configs,
        "params": {**kept, "intensity_scale": scale},
        "_version": BUNDLE_VERSION,
    }
    text = json.dumps(stored, indent=1, sort_keys=True, default=str).encode()
    reduced = {k: v for k, v in state.items() if k.startswith(GENERATOR_KEYS)}
    members: dict[str, bytes] = {}
    for name, tensors in zip(MODELS, (state, reduced), strict=True):
        members[f"{name}/model.pth"] = _tensors(tensors)
        members[f"{name}/params.json"] = text
    manifest = {
        "version": BUNDLE_VERSION,
        "backend": "pytorch",
        "models": list(MODELS),
        "sha256": {name: hashlib.sha256(data).hexdigest() for name, data in members.items()},
    }
    members["manifest.json"] = json.dumps(manifest, indent=1, sort_keys=True).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(members):
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), members[name])
    path = Path(folder) / BUNDLE_NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, buffer.getvalue())
    return path


def find_bundle(folder: str | Path) -> Path:
    """``<folder>/wts.h5.zip``.

    Raises:
        ValueError: not a folder.
        FileNotFoundError: no bundle in it.
    """
    folder = Path(folder)
    if folder.name == BUNDLE_NAME and folder.is_file():
        return folder
    if not folder.is_dir():
        raise ValueError(f"{folder}: not a folder; give the output folder of a training")
    path = folder / BUNDLE_NAME
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; train first, or give its folder")
    return path


def _members(path: Path) -> dict[str, bytes]:
    try:
        with zipfile.ZipFile(path) as archive:
            return {name: archive.read(name) for name in archive.namelist()}
    except zipfile.BadZipFile as error:
        raise CheckpointError(f"{path}: not a readable archive ({error})") from None


def _manifest(path: Path, members: dict[str, bytes], trust_pickle: bool) -> dict[str, Any]:
    if "manifest.json" in members:
        return json.loads(members["manifest.json"])
    if any(name.endswith(("model.keras", "saved_model.pb")) for name in members):
        raise ValueError(
            f"{path}: written by the tensorflow backend, this is the pytorch backend; load it with "
            "backend tensorflow, or train again with pytorch"
        )
    if "manifest.dill" in members:
        if not trust_pickle:
            raise CheckpointError(
                f"{path}: pickled manifest; unpickling runs code from the archive, so it is read "
                "only with trust_pickle=True (--trust-pickle)"
            )
        import pickle

        return dict(pickle.loads(members["manifest.dill"]))
    raise CheckpointError(f"{path}: no manifest.json; not a bundle of this package")


def load_bundle(
    folder: str | Path, *, trust_pickle: bool = False
) -> tuple[PtychoPINN_Lightning, dict[str, Any]]:
    """Rebuild the trained model and its parameters.

    Args:
        folder: the folder of the bundle, or the bundle itself.
        trust_pickle: read pickled parameters; only for archives you wrote yourself.

    Raises:
        KeyError: a required model is missing.
        CheckpointError: changed or incomplete contents, or weights of another architecture.
        ValueError: the archive belongs to the other backend.
    """
    path = find_bundle(folder)
    members = _members(path)
    manifest = _manifest(path, members, trust_pickle)
    backend = manifest.get("backend", "tensorflow")
    if backend != "pytorch":
        raise ValueError(f"{path}: written by the {backend} backend, this is the pytorch backend")
    for name in MODELS:
        if name not in manifest.get("models", ()):
            raise KeyError(f"{path}: model {name} is missing; found {manifest.get('models')}")
    for name, digest in manifest.get("sha256", {}).items():
        if hashlib.sha256(members.get(name, b"")).hexdigest() != digest:
            raise CheckpointError(f"{path}: {name} was changed or cut; its digest does not match")
    stored = _params(path, members, trust_pickle)
    if f"{MODELS[0]}/model.pth" not in manifest.get("sha256", {}) and not trust_pickle:
        raise CheckpointError(f"{path}: the manifest names no digests; refused")
    model = PtychoPINN_Lightning(**stored["configs"])
    state = torch.load(io.BytesIO(members[f"{MODELS[0]}/model.pth"]), weights_only=True)
    model.load_strictly(state, str(path))
    return model.eval(), stored["params"]


def _params(path: Path, members: dict[str, bytes], trust_pickle: bool) -> dict[str, Any]:
    name = f"{MODELS[0]}/params.json"
    if name in members:
        stored = json.loads(members[name])
    elif trust_pickle and f"{MODELS[0]}/params.dill" in members:
        import pickle

        stored = pickle.loads(members[f"{MODELS[0]}/params.dill"])
    else:
        raise CheckpointError(f"{path}: {name} is missing; pickled parameters need trust_pickle")
    missing = [key for key in ("N", "grid_size") if key not in stored["configs"]["data_config"]]
    if missing:
        raise KeyError(f"{path}: params lack {', '.join(missing)}; needed to rebuild the network")
    return stored


def load_model(path: str | Path, *, trust_pickle: bool = False) -> PtychoPINN_Lightning:
    """Load a ``.ckpt``, a bundle, or the newest of either in a training's folder."""
    path = Path(path)
    with reading(path, "trained model"):
        if path.suffix == ".ckpt":
            return PtychoPINN_Lightning.load_from_checkpoint(path)
        return load_bundle(path, trust_pickle=trust_pickle)[0]
