"""Where an encoder's files are, and how they are read without trusting them.

Weights are read by safetensors, or by torch with `weights_only`. Nothing is unpickled, and nothing is
executed that a configuration names.
"""

from __future__ import annotations

import hashlib
import json
import pickle
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.pretrained import download_pretrained, download_pretrained_from_hf, get_pretrained_cfg
from safetensors import SafetensorError
from safetensors.torch import load_file

from embeddings.errors import EncoderError

__all__ = ["COMPACT", "Checkpoint", "read_weights", "resolve"]

COMPACT = "banken-compact"
"""The encoder that ships with the package."""

_CONFIG = "open_clip_config.json"
_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "model.safetensors")
_PICKLED = frozenset({".pt", ".pth", ".bin"})


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """An encoder on disk.

    Attributes:
        name: of the encoder, for its identity.
        model: open_clip's ``model_cfg``.
        preprocess: open_clip's ``preprocess_cfg``, possibly with keys missing.
        weights: the weights file.
        sha256: what the file must hash to; None where nobody said.
        tokenizer: what ``open_clip.get_tokenizer`` calls the encoder; a directory where it holds the
            tokenizer.
    """

    name: str
    model: dict[str, Any]
    preprocess: dict[str, Any]
    weights: Path
    sha256: str | None
    tokenizer: str | Path


def resolve(spec: str) -> Checkpoint:
    """Find an encoder's configuration and weights; `Encoder.load` lists the forms of `spec`.

    Raises:
        EncoderError: something is missing, unreadable, or cannot be downloaded.
    """
    place, _, pinned = spec.partition("#sha256=")
    sha256 = pinned.lower() or None
    if place == COMPACT:
        return _compact(sha256)
    if place.startswith("hf-hub:"):
        return _hub(place, sha256)
    if "@" in place:
        architecture, _, path = place.partition("@")
        return Checkpoint(architecture, _built_in(architecture), {}, Path(path), sha256, architecture)
    if Path(place).is_dir():
        return _directory(Path(place), sha256)
    if place.count("/") == 1 and not place.startswith((".", "/", "~")):
        return _tagged(place, sha256)
    raise EncoderError(
        f"no encoder {place!r}: neither {COMPACT!r}, a directory, MODEL/TAG, MODEL@WEIGHTS nor "
        f"hf-hub:ORG/NAME; "
        "`python -c 'import open_clip; print(open_clip.list_pretrained())'` lists the tags"
    )


def read_weights(checkpoint: Checkpoint) -> tuple[dict[str, torch.Tensor], str]:
    """Read and check a weights file.

    Returns:
        The tensors by name, and the SHA-256 of the file in hex.

    Raises:
        EncoderError: no such file, a wrong hash, a truncated file, or one that could run code.
    """
    path = checkpoint.weights
    try:
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise EncoderError(f"cannot read the weights of {checkpoint.name}: {error}") from error
    if checkpoint.sha256 not in (None, sha256):
        raise EncoderError(
            f"{path} has SHA-256 {sha256}, not {checkpoint.sha256}: the file is damaged or another one; "
            f"fetch it again"
        )
    if path.suffix == ".safetensors":
        try:
            return load_file(path), sha256
        except SafetensorError as error:
            raise EncoderError(
                f"{path} is no whole safetensors file ({error}); fetch it again. A pickle under this name "
                f"is refused"
            ) from error
    if path.suffix not in _PICKLED:
        raise EncoderError(f"{path}: weights come as .safetensors, or as .pt, .pth or .bin read weights-only")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    # Only the class of torch's refusal is taken from pickle.
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, TypeError, KeyError) as error:
        raise EncoderError(
            f"{path} is truncated or holds more than tensors, and is not unpickled; convert it to "
            f"safetensors "
            f"where you trust it ({str(error).splitlines()[0]})"
        ) from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise EncoderError(f"{path} holds no state dict (tensors by name)")
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}, sha256


def _compact(sha256: str | None) -> Checkpoint:
    folder = Path(str(files("embeddings") / "compact"))
    recorded = folder / "weights.sha256"
    if sha256 is None and recorded.is_file():
        sha256 = recorded.read_text("ascii").split()[0]
    model, preprocess = _configuration(folder / f"{COMPACT}.json")
    return Checkpoint(COMPACT, model, preprocess, folder / "weights.safetensors", sha256, folder)


def _directory(folder: Path, sha256: str | None) -> Checkpoint:
    model, preprocess = _configuration(folder / _CONFIG)
    found = [folder / name for name in _WEIGHTS if (folder / name).is_file()] or sorted(
        [*folder.glob("*.safetensors"), *(path for path in folder.iterdir() if path.suffix in _PICKLED)]
    )
    if not found:
        raise EncoderError(f"{folder} holds no weights; put {_WEIGHTS[0]} beside {_CONFIG}")
    if len(found) > 1 and found[0].name not in _WEIGHTS:
        raise EncoderError(f"{folder} holds several weights files; rename the right one to {_WEIGHTS[0]}")
    # The configuration can be edited where the weights stay the same, so it is part of the name.
    edition = hashlib.sha256(json.dumps([model, preprocess], sort_keys=True).encode()).hexdigest()[:8]
    return Checkpoint(f"{folder.resolve().name}+{edition}", model, preprocess, found[0], sha256, folder)


def _hub(place: str, sha256: str | None) -> Checkpoint:
    name = place.removeprefix("hf-hub:")
    try:
        config = Path(download_pretrained_from_hf(name, filename=_CONFIG))
        weights = Path(download_pretrained_from_hf(name))
    except (
        OSError,
        ValueError,
        RuntimeError,
    ) as error:  # open_clip wraps what the hub's client raises in OSError
        raise EncoderError(
            f"cannot fetch {place} ({_first_line(error)}). By hand: on a machine with a network download "
            f"https://huggingface.co/{name}/resolve/main/{_CONFIG} and .../open_clip_model.safetensors (and "
            f"the "
            "tokenizer files, if there are any) into one directory, copy it here and give the directory as "
            "the encoder"
        ) from error
    model, preprocess = _configuration(config)
    return Checkpoint(place, model, preprocess, weights, sha256, place)


def _tagged(place: str, sha256: str | None) -> Checkpoint:
    architecture, tag = place.split("/")
    model = _built_in(architecture)
    known = get_pretrained_cfg(architecture, tag)
    if not known:
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(architecture)) or "none"
        raise EncoderError(f"open_clip knows no weights {tag!r} for {architecture}; it knows {tags}")
    model["quick_gelu"] = bool(known.get("quick_gelu", False))  # the activation is the weights' matter
    try:
        weights = Path(download_pretrained(known))
    except (OSError, ValueError, RuntimeError) as error:
        source = known.get("hf_hub") or known.get("url")
        raise EncoderError(
            f"cannot fetch {place} ({_first_line(error)}). By hand: fetch the weights from {source} on a "
            f"machine with "
            f"a network, copy the file here and give {architecture}@FILE as the encoder"
        ) from error
    return Checkpoint(place, model, known, weights, sha256, architecture)


def _built_in(architecture: str) -> dict[str, Any]:
    model: dict[str, Any] | None = (
        open_clip.get_model_config(architecture) if ":" not in architecture else None
    )
    if model is None:
        raise EncoderError(
            f"open_clip has no architecture {architecture!r}; open_clip.list_models() lists them"
        )
    return model


def _configuration(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The model and preprocessing parts of a file, nested as on the hub or flat as in open_clip."""
    try:
        config = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise EncoderError(f"cannot read the encoder's configuration {path}: {error}") from error
    model = config.get("model_cfg", config) if isinstance(config, dict) else None
    if not isinstance(model, dict) or not {"embed_dim", "vision_cfg", "text_cfg"} <= model.keys():
        raise EncoderError(
            f"{path} is no open_clip configuration: embed_dim, vision_cfg or text_cfg is missing"
        )
    if "trust_remote_code" in json.dumps(model):
        raise EncoderError(
            f"{path} asks to run code from a model repository (trust_remote_code); Banken never does"
        )
    preprocess = config.get("preprocess_cfg", {})
    return {key: value for key, value in model.items() if key != "preprocess_cfg"}, preprocess


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
