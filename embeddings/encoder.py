"""open_clip encoders: any model, any device, one code path."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from open_clip import get_tokenizer
from open_clip.tokenizer import DEFAULT_CONTEXT_LENGTH, HFTokenizer, SimpleTokenizer
from torch import nn
from torch.nn.functional import normalize

from embeddings.architecture import build, preprocess_of
from embeddings.checkpoints import COMPACT, Checkpoint, resolve
from embeddings.chunks import in_chunks, in_parallel, invariant_chunk
from embeddings.errors import EncoderError
from embeddings.preprocess import Preprocess
from embeddings.transfer import CudaFeed

__all__ = ["Encoder", "EncoderIdentity"]

_LOG = logging.getLogger(__name__)
_CHUNK = {"cpu": 8, "mps": 64, "cuda": 256}
"""Images in one forward pass by default; docs/encoders.md has the measurements."""


@dataclass(frozen=True, slots=True)
class EncoderIdentity:
    """What embeddings must share to be compared.

    Attributes:
        name: of the encoder; for a directory also eight digits of its configuration's hash.
        weights: SHA-256 of the weights file, in hex.
        dim: of the embeddings.
    """

    name: str
    weights: str
    dim: int


class Encoder:
    """A CLIP model's two towers. Make one with `load`.

    The same picture gives the same float16 embedding whatever its batch: pictures go through the model in
    chunks of one fixed size (the last is padded), and loading checks on this machine that a picture's place
    in a chunk does not change a bit. This holds on one device and with one `batch_size`. On a CPU each chunk
    runs on one core, as many chunks at a time as torch has threads.

    Attributes:
        identity: what embeddings must share to be compared.
        preprocess: what a picture must become first.
        device: where the model is.
        batch_size: images in one forward pass; halved for good when the device runs out of memory.
        model: the open_clip model, in evaluation mode, its batch norms folded.

    Examples:
        >>> encoder = Encoder.load(device="cpu")
        >>> size = encoder.preprocess.size
        >>> encoder.embed(np.zeros((3, size, size, 3), np.uint8)).shape == (3, encoder.identity.dim)
        True
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        identity: EncoderIdentity,
        preprocess: Preprocess,
        device: torch.device,
        batch_size: int,
        tokenizer: Callable[[], Callable[..., torch.Tensor]],
    ) -> None:
        self.identity = identity
        self.preprocess = preprocess
        self.device = device
        self.batch_size = batch_size
        self.model: Any = model.to(device).to(memory_format=torch.channels_last)
        self._make_tokenizer = tokenizer
        self._tokenizer: Callable[..., torch.Tensor] | None = None
        self._feed = (
            CudaFeed(device) if device.type == "cuda" else lambda chunk: torch.from_numpy(chunk).to(device)
        )
        # One thread a worker: set in the worker, so that the rest of the process keeps its own number.
        self._workers = ThreadPoolExecutor(
            torch.get_num_threads(), "encode", initializer=torch.set_num_threads, initargs=(1,)
        )
        # Normalisation as one multiplication and one addition.
        mean = torch.tensor(preprocess.mean).view(3, 1, 1)
        std = torch.tensor(preprocess.std).view(3, 1, 1)
        self._scale, self._shift = (1 / (255 * std)).to(device), (-mean / std).to(device)

    @classmethod
    def load(cls, spec: str = COMPACT, *, device: str = "auto", batch_size: int | None = None) -> Encoder:
        """Load an encoder.

        Args:
            spec: one of

                - ``banken-compact``: ships with the package, needs no network;
                - ``ViT-B-32/laion2b_s34b_b79k``: an open_clip model and the tag of its weights;
                - ``hf-hub:org/name``: a repository on the Hugging Face hub;
                - ``ViT-B-32@/path/to/weights.safetensors``: an open_clip model with a local file;
                - a directory with ``open_clip_config.json`` and weights.

                ``#sha256=…`` at the end pins the weights file.
            device: ``cpu``, ``cuda``, ``cuda:1``, ``mps``, or ``auto`` for the best there is.
            batch_size: images in one forward pass, at most; None chooses by device.

        Raises:
            EncoderError: the encoder cannot be found, fetched, trusted or built, or the device is not there.
        """
        place = _device(device)
        size = _CHUNK.get(place.type, 16) if batch_size is None else batch_size
        if size < 1:
            raise EncoderError(f"batch_size is {size}; give 1 or more")
        checkpoint = resolve(spec)
        model, sha256 = build(checkpoint)
        preprocess = preprocess_of(model, checkpoint)
        encoder = cls(
            model,
            identity=EncoderIdentity(checkpoint.name, sha256, int(checkpoint.model["embed_dim"])),
            preprocess=preprocess,
            device=place,
            batch_size=size,
            tokenizer=lambda: _tokenizer(checkpoint),
        )
        shape = (preprocess.size, preprocess.size, 3)
        one_thread = encoder._workers.submit(invariant_chunk, encoder._image_chunk, shape, size)
        encoder.batch_size = one_thread.result()
        return encoder

    def embed(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float16]:
        """Embed pictures.

        Args:
            pixels: uint8, shape (n, size, size, 3); `Picture.pixels` stacked.

        Returns:
            L2-normalised in float32, then rounded to float16; shape (n, d).

        Raises:
            EncoderError: another shape or type, weights that give no finite embedding, or a single picture
                does not fit the device's memory.
        """
        size = self.preprocess.size
        if pixels.dtype != np.uint8 or pixels.shape[1:] != (size, size, 3):
            raise EncoderError(
                f"{self.identity.name} embeds uint8 pixels of shape (n, {size}, {size}, 3), not "
                f"{pixels.dtype} of shape {pixels.shape}; decode with its preprocess"
            )
        return self._run(self._image_chunk, pixels)

    def embed_text(self, texts: Sequence[str], templates: Sequence[str] = ("{}",)) -> npt.NDArray[np.float16]:
        """Embed texts with the text tower.

        A text longer than the model's context is cut, as every CLIP endpoint does, and a warning is logged.

        Args:
            texts: what to embed.
            templates: prompts in which ``{}`` stands for the text; a text's embedding is the mean over them
                (Radford et al. 2021, section 3.1.4).

        Returns:
            L2-normalised in float32, then rounded to float16; shape (n, d).

        Raises:
            EncoderError: no template, the tokenizer's files are missing, or the weights give no finite
                embedding.
        """
        if not templates:
            raise EncoderError('no prompt template; give at least "{}"')
        prompts = [template.replace("{}", text) for text in texts for template in templates]
        if not prompts:
            return np.empty((0, self.identity.dim), np.float16)
        embeddings = self._run(self._text_chunk, self._tokens(prompts), np.float32)
        mean = embeddings.reshape(len(texts), len(templates), -1).mean(axis=1)
        mean /= np.linalg.norm(mean, axis=1, keepdims=True)
        return np.asarray(mean, np.float16)

    def normalise(self, pixels: npt.NDArray[np.uint8]) -> torch.Tensor:
        """What the image tower sees: (x / 255 - mean) / std, channels last, on the device.

        Args:
            pixels: uint8, shape (k, size, size, 3).

        Returns:
            Float32, shape (k, 3, size, size).
        """
        images = self._feed(pixels).permute(0, 3, 1, 2)  # channels last, without moving a byte
        return torch.addcmul(self._shift, images.float(), self._scale)

    def _run(
        self,
        forward: Callable[[npt.NDArray[Any]], torch.Tensor],
        rows: npt.NDArray[Any],
        dtype: type[np.floating[Any]] = np.float16,
    ) -> npt.NDArray[Any]:
        if self.device.type == "cpu":
            pieces = in_parallel(forward, rows, self.batch_size, self._workers)
        else:
            pieces, self.batch_size = in_chunks(forward, rows, self.batch_size)
        if not pieces:
            return np.empty((0, self.identity.dim), dtype)
        embeddings = torch.cat(pieces).cpu().numpy()
        if not np.isfinite(embeddings).all():
            raise EncoderError(
                f"{self.identity.name} gives NaN or infinity; its weights are damaged or of another model"
            )
        return embeddings.astype(dtype)

    def _image_chunk(self, pixels: npt.NDArray[np.uint8]) -> torch.Tensor:
        """Pixels (k, size, size, 3) to float32 unit vectors (k, d) on the device."""
        with torch.inference_mode(), self._precision():
            return normalize(self.model.encode_image(self.normalise(pixels)).float(), dim=-1)

    def _text_chunk(self, tokens: npt.NDArray[np.int64]) -> torch.Tensor:
        """Tokens (k, context) to float32 unit vectors (k, d) on the device."""
        with torch.inference_mode(), self._precision():
            return normalize(self.model.encode_text(torch.from_numpy(tokens).to(self.device)).float(), dim=-1)

    def _precision(self) -> AbstractContextManager[None]:
        """bfloat16 matrix products on CUDA, float32 everywhere else.

        banken-compact stays in float32 there too: a baseline fitted on a CPU must hold on a GPU, its
        projection magnifies what bfloat16 loses (docs/encoders.md), and the model is small.
        """
        if self.device.type == "cuda" and self.identity.name != COMPACT:
            return torch.autocast("cuda", torch.bfloat16)
        return nullcontext()

    def _tokens(self, prompts: Sequence[str]) -> npt.NDArray[np.int64]:
        """Prompts to tokens, shape (n, context); logs where some were cut."""
        if self._tokenizer is None:
            self._tokenizer = self._make_tokenizer()
        tokens = self._tokenizer(prompts)
        context = tokens.shape[1]
        # With room for one more token a prompt that was cut shows another word where its end was marked.
        cut = (self._tokenizer(prompts, context_length=context + 1)[:, :context] != tokens).any(dim=1)
        if cut.any():
            _LOG.warning(
                "%d of %d texts are longer than the context of %s (%d tokens) and were cut",
                int(cut.sum()),
                len(prompts),
                self.identity.name,
                context,
            )
        found: npt.NDArray[np.int64] = tokens.numpy()
        return found


def _device(name: str) -> torch.device:
    """A device that is there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch built without the device asserts
        raise EncoderError(
            f"no device {name!r} here ({error}); give cpu, cuda, cuda:N, mps or auto"
        ) from error
    return device


def _tokenizer(checkpoint: Checkpoint) -> Callable[..., torch.Tensor]:
    """The tokenizer that the text tower was trained with."""
    text = checkpoint.model["text_cfg"]
    try:
        if isinstance(checkpoint.tokenizer, str):
            made: Callable[..., torch.Tensor] = get_tokenizer(checkpoint.tokenizer)
        else:
            context = text.get("context_length", DEFAULT_CONTEXT_LENGTH)
            options = text.get("tokenizer_kwargs", {})
            if "hf_tokenizer_name" in text:
                made = HFTokenizer(
                    str(checkpoint.tokenizer), context, tokenizer_mode=text.get("tokenizer_mode"), **options
                )
            else:
                made = SimpleTokenizer(context_length=context, **options)
    except (OSError, ValueError, TypeError, ImportError) as error:
        raise EncoderError(
            f"the tokenizer of {checkpoint.name} cannot be made ({error}); put its files beside the "
            f"configuration, and "
            "install transformers if that is what is missing"
        ) from error
    return made
