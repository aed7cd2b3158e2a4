"""The encoder that ships: its files fit one another, and what was held out of training stayed out."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from open_clip.tokenizer import SimpleTokenizer
from safetensors import safe_open

from embeddings.compact import evaluate, manifest, sources, train
from embeddings.compact.captions import WORDNET, clean, load_wordnet, mentions
from embeddings.compact.projection import fit_projection
from embeddings.compact.scores import detect, fit_domain, separation

HERE = Path(train.__file__).parent
CONFIG = json.loads((HERE / "banken-compact.json").read_text())
VOCABULARY = (HERE / "vocabulary.txt").read_text().splitlines()
TEMPLATES = (HERE / "templates.txt").read_text().splitlines()

needs_wordnet = pytest.mark.skipif(not WORDNET.exists(), reason="Debian's wordnet-base is not installed")
needs_data = pytest.mark.skipif(
    "BANKEN_DATA" not in os.environ or not sources.OPENCLIPART.exists(),
    reason="needs BANKEN_DATA and Debian's openclipart-png",
)


@pytest.fixture(scope="module")
def model():
    return evaluate.load_compact()


def test_weights_are_small_enough_to_ship_and_match_their_hash():
    weights = HERE / "weights.safetensors"
    assert weights.stat().st_size <= 40_000_000
    recorded = (HERE / "weights.sha256").read_text().split()[0]
    assert hashlib.sha256(weights.read_bytes()).hexdigest() == recorded


def test_weights_are_finite():
    with safe_open(HERE / "weights.safetensors", "pt") as stored:
        tensors = [stored.get_tensor(name) for name in stored.keys()]  # noqa: SIM118  not a dict
    assert all(bool(torch.isfinite(tensor).all()) for tensor in tensors if tensor.is_floating_point())


def test_open_clip_builds_the_configuration_and_takes_the_weights(model, tmp_path):
    (tmp_path / "compact.json").write_text(json.dumps(CONFIG["model_cfg"]))
    open_clip.add_model_config(tmp_path / "compact.json")
    built = open_clip.create_model("compact")
    assert built.state_dict().keys() == model.state_dict().keys()
    assert CONFIG["preprocess_cfg"]["size"] == CONFIG["model_cfg"]["vision_cfg"]["image_size"]


def test_an_image_embedding_has_512_dimensions_and_does_not_depend_on_its_batch(model):
    images = torch.rand(3, 3, 160, 160, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.inference_mode():
        together = model.encode_image(images, normalize=True)
        alone = model.encode_image(images[1:2], normalize=True)
    assert together.shape == (3, 512)
    assert torch.allclose(together[1:2], alone, atol=1e-5)


@pytest.mark.parametrize(("word", "near", "far"), [("kitten", "cat", "truck"), ("lorry", "truck", "bird")])
def test_the_text_tower_knows_words_that_no_image_was_labelled_with(model, word, near, far):
    tokenise = SimpleTokenizer(context_length=model.context_length)
    with torch.inference_mode():
        said, close, distant = model.encode_text(tokenise([word, near, far]), normalize=True)
    assert said @ close > said @ distant


def test_vocabulary_is_lower_case_sorted_and_without_duplicates():
    assert sorted(set(VOCABULARY)) == VOCABULARY
    assert all(word == word.lower().strip() and word for word in VOCABULARY)
    assert len(VOCABULARY) > 500


def test_every_template_has_one_place_for_the_name():
    assert TEMPLATES[0] == "{}"
    assert all(template.count("{}") == 1 for template in TEMPLATES)


def test_the_manifest_names_exactly_the_sources_of_the_code():
    stored = manifest.read_manifest()
    assert stored["training"].keys() == sources.TRAINING.keys()
    assert stored["held_out"].keys() == sources.HELD_OUT.keys()


def test_no_source_trains_that_detection_is_measured_on():
    assert not sources.TRAINING.keys() & sources.HELD_OUT.keys()
    held = ("pool", "test", "train", "fashion", "cifar10-", "odd")
    assert not [name for name in sources.TRAINING if any(part in name for part in held)]


@pytest.mark.parametrize(("digit", "trains"), [("0", True), ("1", False), ("e", True), ("f", False)])
def test_clip_art_is_split_by_the_first_digit_of_its_hash(digit, trains):
    assert sources.in_training_half(digit + "0" * 63) is trains


def test_a_manifest_entry_does_not_depend_on_order():
    assert manifest.digest_of(["b", "a"]) == manifest.digest_of(["a", "b"]) != manifest.digest_of(["a"])


@needs_data
def test_no_held_out_image_is_among_the_training_images():
    data = Path(os.environ["BANKEN_DATA"])
    training = {e.digest for name in sources.TRAINING for e in sources.read(name, data)}
    for name in sources.HELD_OUT:
        overlap = {e.digest for e in sources.read(name, data)} & training
        assert not overlap, f"{name}: {len(overlap)} images are in training"


@needs_data
def test_the_inputs_at_hand_are_those_of_the_manifest(capsys):
    manifest.main(["--data", os.environ["BANKEN_DATA"]])
    assert "all inputs" in capsys.readouterr().out


@pytest.mark.parametrize("command", [train.main, evaluate.main, manifest.main])
def test_each_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as left:
        command(["--help"])
    assert left.value.code == 0
    assert "--data" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("caption", "words"), [("A red_flag.", "red flag"), ("racing-car", "racing car"), ("star07", "star")]
)
def test_captions_are_cleaned(caption, words):
    assert clean(caption) == words


def test_a_mention_is_a_whole_word_or_its_plural():
    assert mentions("three crabs on a beach", frozenset({"crab"}))
    assert not mentions("a crabby man", frozenset({"crab"}))


@needs_wordnet
@pytest.mark.parametrize(("name", "wider"), [("whale", "mammal"), ("otter", "animal"), ("bus", "conveyance")])
def test_a_name_means_what_a_picture_shows(name, wider):
    wordnet = load_wordnet()
    assert wider in wordnet.hypernyms(wordnet.sense(name).offset)


def test_the_projection_whitens():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(4_000, 6)) * [5, 4, 3, 2, 1, 0.5]
    projection = fit_projection(features, features, 4, 1e-9)
    mapped = features @ projection.weight.T + projection.bias
    np.testing.assert_allclose(np.cov(mapped, rowvar=False), np.eye(4), atol=1e-3)


def test_the_scores_are_standard_on_calibration_and_larger_on_foreign_images():
    rng = np.random.default_rng(0)

    def cone(axis: int, count: int) -> np.ndarray:
        points = 0.3 * rng.normal(size=(count, 48)) + 2 * np.eye(48)[axis]
        return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)

    domain = fit_domain(cone(0, 300), calibration := cone(0, 200))
    scores = detect(domain, calibration)
    np.testing.assert_allclose(scores.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(scores.std(0), 1, atol=1e-5)
    assert separation(domain, cone(0, 200), cone(1, 200)).both > 0.99
