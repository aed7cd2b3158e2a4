from __future__ import annotations

import hashlib
import json
import logging
import pickle
import shutil
import time
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from safetensors.torch import load_file, save_file
from torch import nn

from embeddings.architecture import fold_batch_norms
from embeddings.checkpoints import resolve
from embeddings.chunks import in_chunks, invariant_chunk
from embeddings.decoding import decode
from embeddings.encoder import Encoder
from embeddings.errors import EncoderError
from tests.embeddings.conftest import TINY, drawing, encoded


def load(spec: str | Path, batch_size: int | None = 4) -> Encoder:
    return Encoder.load(str(spec), device="cpu", batch_size=batch_size)


def pixels(encoder: Encoder, count: int) -> np.ndarray:
    return np.stack([decode(encoded(drawing(seed)), encoder.preprocess).pixels for seed in range(count)])


@pytest.fixture
def copy(tiny: Path, tmp_path: Path) -> Path:
    """The tiny encoder's directory, free to be damaged."""
    return Path(shutil.copytree(tiny, tmp_path / "copy"))


# What an embedding is


def test_embeddings_are_open_clips(tiny: Path) -> None:
    model = open_clip.CLIP(**TINY)
    model.load_state_dict(load_file(tiny / "open_clip_model.safetensors"))
    model.eval()
    transform = image_transform_v2(PreprocessCfg(size=32, mean=(0.5,) * 3, std=(0.25,) * 3), is_train=False)
    pictures = [drawing(seed) for seed in range(6)]
    words = ["a cat", "two dogs"]
    with torch.inference_mode():
        images = model.encode_image(torch.stack([transform(p) for p in pictures]), normalize=True).numpy()
        texts = model.encode_text(open_clip.SimpleTokenizer(context_length=12)(words), normalize=True).numpy()
    encoder = load(tiny)
    np.testing.assert_allclose(encoder.embed(pixels(encoder, 6)), images, atol=1e-3)
    np.testing.assert_allclose(encoder.embed_text(words), texts, atol=1e-3)


def test_the_compact_encoder_ships_and_embeds(compact: Encoder) -> None:
    assert compact.identity.name == "banken-compact"
    assert len(compact.identity.weights) == 64
    embeddings = compact.embed(pixels(compact, 5))
    assert embeddings.dtype == np.float16
    assert embeddings.shape == (5, compact.identity.dim)
    np.testing.assert_allclose(np.linalg.norm(embeddings.astype(np.float32), axis=1), 1, atol=2e-3)
    assert compact.embed(pixels(compact, 1)[:0]).shape == (0, compact.identity.dim)


def test_the_compact_weights_are_the_recorded_ones(compact: Encoder) -> None:
    """A new training must record its file: ``sha256sum weights.safetensors > weights.sha256``."""
    assert resolve("banken-compact").sha256 == compact.identity.weights


def test_folding_batch_norms_keeps_the_compact_encoders_answers(compact: Encoder) -> None:
    assert not any(isinstance(module, nn.BatchNorm2d) for module in compact.model.visual.modules())
    checkpoint = resolve("banken-compact")
    model = open_clip.CLIP(**checkpoint.model).eval()
    model.load_state_dict(load_file(checkpoint.weights))
    images = pixels(compact, 6)
    mean, std = compact.preprocess.mean, compact.preprocess.std
    normalised = torch.from_numpy(((images / 255 - mean) / std).astype(np.float32)).permute(0, 3, 1, 2)
    with torch.inference_mode():
        expected = model.encode_image(normalised, normalize=True).numpy()
    np.testing.assert_allclose(compact.embed(images), expected, atol=1e-3)


def test_wrong_pixels_are_refused(tiny: Path) -> None:
    encoder = load(tiny)
    for wrong in (
        np.zeros((2, 32, 32, 3)),
        np.zeros((2, 31, 32, 3), np.uint8),
        np.zeros((32, 32, 3), np.uint8),
    ):
        with pytest.raises(EncoderError, match="uint8 pixels of shape"):
            encoder.embed(wrong)


# The same picture gives the same bits whatever its batch


def test_bits_do_not_depend_on_position_company_or_repetition(compact: Encoder) -> None:
    size = compact.batch_size
    pictures = pixels(compact, size + 3)
    alone = compact.embed(pictures[:1])[0]
    generator = np.random.default_rng(0)
    for position in range(size):
        company = generator.permutation(pictures[1:])[:size]
        company[position] = pictures[0]
        assert np.array_equal(compact.embed(company)[position], alone)
    whole = compact.embed(pictures)
    for start, stop in ((0, 1), (2, 5), (1, size + 2)):
        assert np.array_equal(compact.embed(pictures[start:stop]), whole[start:stop])
    assert np.array_equal(compact.embed(pictures), whole)


def test_two_encoders_of_the_same_files_agree(tiny: Path) -> None:
    first, second = load(tiny), load(tiny)
    assert first.identity == second.identity
    pictures = pixels(first, 9)
    assert np.array_equal(first.embed(pictures), second.embed(pictures))


def test_text_bits_do_not_depend_on_the_batch(tiny: Path) -> None:
    encoder = load(tiny)
    words = ["cat", "dog", "a red bus", "teapot", "goldfish", "school"]
    whole = encoder.embed_text(words)
    for i, word in enumerate(words):
        assert np.array_equal(encoder.embed_text([word])[0], whole[i])


def test_chunks_shrink_until_places_do_not_matter() -> None:
    def last_rows_differ(rows: np.ndarray) -> torch.Tensor:
        """Like a kernel that takes rows in fours and the remainder by another path."""
        means = torch.from_numpy(rows.reshape(len(rows), -1).astype(np.float32)).mean(dim=1, keepdim=True)
        tail = len(rows) % 4
        return torch.cat([means[: len(rows) - tail], means[len(rows) - tail :] * (1 + 1e-6)])

    assert invariant_chunk(last_rows_differ, (5, 5, 3), 16) == 16
    assert invariant_chunk(last_rows_differ, (5, 5, 3), 18) == 4  # 18 and 9 have a tail
    assert invariant_chunk(last_rows_differ, (5, 5, 3), 7) == 3  # shorter than four: all by the other path
    assert invariant_chunk(last_rows_differ, (5, 5, 3), 1) == 1


# Memory


def test_out_of_memory_halves_the_chunk_and_goes_on() -> None:
    seen = []

    def small_device(rows: np.ndarray) -> torch.Tensor:
        seen.append(len(rows))
        if len(rows) > 5 or len(seen) == 3:
            raise torch.cuda.OutOfMemoryError("too much")
        return torch.from_numpy(rows * 2)

    rows = np.arange(30, dtype=np.int64).reshape(15, 2)
    pieces, size = in_chunks(small_device, rows, 16)
    assert torch.cat(pieces).tolist() == (rows * 2).tolist()
    assert size == 2
    assert seen[:4] == [16, 8, 4, 2]


def test_one_picture_that_does_not_fit_is_an_error() -> None:
    def no_device(rows: np.ndarray) -> torch.Tensor:
        raise torch.cuda.OutOfMemoryError("too much")

    with pytest.raises(EncoderError, match="single picture"):
        in_chunks(no_device, np.zeros((3, 1)), 4)


def test_the_halved_chunk_is_kept(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = load(tiny, batch_size=8)
    monkeypatch.setattr(encoder, "device", torch.device("mps"))  # on a CPU nothing is halved
    forward = encoder._image_chunk

    def crowded(rows: np.ndarray) -> torch.Tensor:
        if len(rows) > 4:
            raise torch.cuda.OutOfMemoryError("too much")
        return forward(rows)

    monkeypatch.setattr(encoder, "_image_chunk", crowded)
    assert encoder.embed(pixels(encoder, 10)).shape == (10, 16)
    assert encoder.batch_size == 4


# Text


def test_templates_are_averaged(tiny: Path) -> None:
    encoder = load(tiny)
    single = [encoder.embed_text(["cat"], [t])[0].astype(np.float32) for t in ("a {}", "the {}")]
    both = encoder.embed_text(["cat"], ["a {}", "the {}"])[0].astype(np.float32)
    mean = np.mean(single, axis=0)
    np.testing.assert_allclose(both, mean / np.linalg.norm(mean), atol=2e-3)
    assert encoder.embed_text([]).shape == (0, 16)
    with pytest.raises(EncoderError, match="template"):
        encoder.embed_text(["cat"], [])


def test_a_text_over_the_context_is_cut_and_logged(tiny: Path, caplog: pytest.LogCaptureFixture) -> None:
    encoder = load(tiny)
    with caplog.at_level(logging.WARNING):
        exact = encoder.embed_text(["dog " * 10])  # ten words and two marks: it just fits
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        longer = encoder.embed_text(["dog " * 10 + "cat " * 90, "cat"])
    assert "1 of 2 texts" in caplog.text
    assert np.array_equal(exact[0], longer[0])


# Where encoders come from


def test_every_local_spec_gives_the_same_vectors(copy: Path) -> None:
    open_clip.add_model_config(_architecture(copy))
    file = copy / "open_clip_model.safetensors"
    torch.save({"state_dict": load_file(file)}, copy.parent / "weights.pt")
    by_directory = load(copy)
    pictures = pixels(by_directory, 3)
    by_file, by_pt = load(f"tiny-vit@{file}"), load(f"tiny-vit@{copy.parent / 'weights.pt'}")
    assert by_file.identity.name == "tiny-vit"
    assert by_file.identity.weights == hashlib.sha256(file.read_bytes()).hexdigest()
    assert np.array_equal(by_file.embed(pictures), by_pt.embed(pictures))
    assert by_file.preprocess.mean == open_clip.OPENAI_DATASET_MEAN  # nobody said otherwise
    assert by_directory.preprocess.mean == (0.5, 0.5, 0.5)


def test_an_edited_configuration_is_another_encoder(tiny: Path, copy: Path) -> None:
    same = Path(shutil.copytree(tiny, copy.parent / "again" / "copy"))
    assert load(copy).identity == load(same).identity
    config = json.loads((copy / "open_clip_config.json").read_text())
    config["preprocess_cfg"]["mean"] = [0.4, 0.4, 0.4]
    (copy / "open_clip_config.json").write_text(json.dumps(config))
    assert load(copy).identity != load(same).identity


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nothing-like-it", "no encoder 'nothing-like-it'"),
        ("/no/such/directory", "no encoder"),
        ("ViT-Z-99/laion2b", "no architecture 'ViT-Z-99'"),
        ("ViT-B-32/no_such_tag", "knows no weights 'no_such_tag'.*laion2b_s34b_b79k"),
        ("ViT-B-32@/no/such/file.safetensors", "cannot read the weights of ViT-B-32"),
    ],
)
def test_specs_that_name_nothing(spec: str, message: str) -> None:
    with pytest.raises(EncoderError, match=message):
        load(spec)


def test_devices_that_are_not_there(tiny: Path) -> None:
    for device in ("cuda:77", "abacus"):
        with pytest.raises(EncoderError, match=f"no device '{device}'"):
            Encoder.load(str(tiny), device=device)
    with pytest.raises(EncoderError, match="batch_size is 0"):
        load(tiny, 0)


@pytest.mark.parametrize("spec", ["hf-hub:laion/no-network-here", "ViT-B-32/laion2b_s34b_b79k"])
def test_without_a_network_the_error_says_how_to_place_the_files(
    spec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(EncoderError, match=r"By hand: .* as the encoder"):
        load(spec)


# Weights that are not to be trusted


class _Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (open, ("bomb-went-off", "w"))


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pt", "weights.bin", "weights.pkl"])
def test_a_pickle_is_never_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for write in (
        lambda path: path.write_bytes(pickle.dumps(_Bomb(), protocol=2)),
        lambda path: torch.save(_Bomb(), path),
    ):
        write(tmp_path / name)
        with pytest.raises(EncoderError, match=r"no whole safetensors|not unpickled|weights come as"):
            load(f"ViT-B-32@{tmp_path / name}")
    assert not (tmp_path / "bomb-went-off").exists()


def test_truncated_weights(copy: Path) -> None:
    file = copy / "open_clip_model.safetensors"
    whole = file.read_bytes()
    for part in (whole[: len(whole) // 2], whole[:5], b""):
        file.write_bytes(part)
        with pytest.raises(EncoderError, match="no whole safetensors file"):
            load(copy)


def test_a_pinned_hash_is_checked(copy: Path) -> None:
    sha256 = hashlib.sha256((copy / "open_clip_model.safetensors").read_bytes()).hexdigest()
    assert load(f"{copy}#sha256={sha256}").identity.weights == sha256
    with pytest.raises(EncoderError, match=f"has SHA-256 {sha256}, not {'0' * 64}"):
        load(f"{copy}#sha256={'0' * 64}")


def test_weights_that_do_not_fit_are_named(copy: Path) -> None:
    file = copy / "open_clip_model.safetensors"
    state = load_file(file)
    wide = {**state, "visual.proj": torch.zeros(64, 17)}
    del wide["ln_final.weight"]
    wide["extra"] = torch.zeros(1)
    save_file(wide, file)
    with pytest.raises(EncoderError) as caught:
        load(copy)
    assert "visual.proj has shape (64, 17), not (64, 16)" in str(caught.value)
    assert "ln_final.weight is missing" in str(caught.value)
    assert "extra has no place" in str(caught.value)
    # open_clip would stretch these to fit, and give worse embeddings without a word.
    save_file({**state, "positional_embedding": torch.zeros(20, 32)}, file)
    with pytest.raises(EncoderError, match="positional_embedding has shape"):
        load(copy)


def test_damaged_numbers_are_noticed(copy: Path) -> None:
    file = copy / "open_clip_model.safetensors"
    save_file({**load_file(file), "visual.proj": torch.full((64, 16), float("nan"))}, file)
    encoder = load(copy)
    with pytest.raises(EncoderError, match="NaN"):
        encoder.embed(pixels(encoder, 2))


def test_configurations_that_are_wrong(copy: Path) -> None:
    path = copy / "open_clip_config.json"
    good = json.loads(path.read_text())
    for text, message in (
        ("{", "cannot read"),
        ("[]", "no open_clip configuration"),
        ('{"model_cfg": {"embed_dim": 4}}', "no open_clip configuration"),
        (
            json.dumps({**good, "model_cfg": {**TINY, "vision_cfg": {"shoe_size": 9}}}),
            "describes no open_clip model",
        ),
        (json.dumps({**good, "preprocess_cfg": {"resize_mode": "origami"}}), "origami"),
        (
            json.dumps({**good, "model_cfg": {**TINY, "tokenizer_kwargs": {"trust_remote_code": True}}}),
            "trust_remote_code",
        ),
    ):
        path.write_text(text)
        with pytest.raises(EncoderError, match=message):
            load(copy)
    path.unlink()
    with pytest.raises(EncoderError, match="cannot read the encoder's configuration"):
        load(copy)


def test_a_directory_without_clear_weights(copy: Path) -> None:
    weights = copy / "open_clip_model.safetensors"
    shutil.copy(weights, copy / "a.safetensors")
    shutil.copy(weights, copy / "b.safetensors")
    load(copy)  # the known name wins
    weights.unlink()
    with pytest.raises(EncoderError, match="several weights files"):
        load(copy)
    (copy / "a.safetensors").unlink()
    load(copy)
    (copy / "b.safetensors").unlink()
    with pytest.raises(EncoderError, match="holds no weights"):
        load(copy)


# Folding


class _Crossed(nn.Module):
    """Registered in one order, used in another: folding by registration would be wrong."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)
        self.second = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.flatten(self.second(self.norm(torch.relu(self.first(images)))), 1)


def test_a_fold_that_changes_answers_is_undone() -> None:
    torch.manual_seed(0)
    tower = _Crossed().eval()
    tower.norm.running_mean.uniform_(-1, 1)
    tower.norm.running_var.uniform_(0.1, 3)
    tower.norm.bias.data.uniform_(-1, 1)
    assert fold_batch_norms(tower, 16) is tower


def test_towers_without_batch_norms_are_left_alone() -> None:
    tower = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten())
    assert fold_batch_norms(tower, 16) is tower


def test_loading_the_compact_encoder_is_quick() -> None:
    start = time.perf_counter()
    Encoder.load(device="cpu")
    assert time.perf_counter() - start < 20


def _architecture(folder: Path) -> Path:
    """The tiny model's configuration as an open_clip architecture named tiny-vit."""
    path = folder.parent / "tiny-vit.json"
    path.write_text(json.dumps(TINY))
    return path
