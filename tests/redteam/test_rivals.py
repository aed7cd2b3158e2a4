"""The rivals' statistics against slow, plain versions of their papers' formulas; their thresholds' rules."""

from __future__ import annotations

from copy import deepcopy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from scipy.stats import shapiro
from torch import nn

from redteam.errors import RedteamError
from redteam.pictures import Pictures
from redteam.rivals import RIVALS
from redteam.rivals.add import WIDTH, AddScores, ClassNormals
from redteam.rivals.hoda import Hardness, HodaScores, fit_hoda, pearson_distance
from redteam.rivals.mmd import BenignSample, MmdScores
from redteam.rivals.prada import LEAST, PradaScores, fit_prada, shapiro_weights
from redteam.rivals.rival import CHUNK, Watch, scores_of
from redteam.rivals.seat import SeatScores, SimilarityEncoder
from redteam.rivals.window_means import WIDTH as MEAN_WIDTH
from redteam.rivals.window_means import WindowMean, brightness
from redteam.victims import Victim, as_input

SIDE, DIM, CLASSES = 8, 6, 3


@pytest.fixture
def rng():
    return np.random.default_rng(11)


@pytest.fixture(scope="module")
def victims():
    torch.manual_seed(3)
    found = []
    for _ in range(6):
        model = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(32, 10),
            nn.Linear(10, CLASSES),
        )
        with torch.no_grad():  # so that each class is given about as often
            logits = model(as_input(torch.randint(256, (200, SIDE, SIDE, 3), dtype=torch.uint8)))
            model[-1].bias -= logits.mean(dim=0)
        found.append(Victim(model, ("a", "b", "c")))
    return Victim(found[-1].model, found[-1].classes, tuple(found[:-1]))


@pytest.fixture
def draw(rng, victims):
    """Makes pictures around a brightness; the embeddings follow it."""

    def made(n, level=128.0, spread=40.0):
        pixels = rng.normal(level, spread, (n, SIDE, SIDE, 3)).clip(0, 255).astype(np.uint8)
        embeddings = rng.normal(level / 128, 0.3, (n, DIM))
        embeddings[:, ::2] *= -1 if level > 200 else 1
        embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
        prints = np.arange(n, dtype=np.uint64)
        return Pictures(
            pixels, embeddings.astype(np.float16), prints, victims.scores(pixels), np.full(n, "", np.str_)
        )

    return made


@pytest.fixture
def world(draw, victims):
    return SimpleNamespace(name="blobs", victim=victims, reference=draw(400))


def chunked(start, asked, sizes):
    state, at, parts = start(), 0, []
    for size in sizes:
        parts.append(state.push(asked[at : at + size]))
        at += size
    parts.append(state.push(asked[at:]))
    return np.concatenate(parts)


@pytest.mark.parametrize("n", [12, 13, 100, 101, 1_999, 4_999])
def test_shapiro_weights_give_scipys_statistic(n, rng):
    x = np.sort(rng.gamma(2.0, size=n))
    half = shapiro_weights(n)
    contrast = half @ (x[::-1][: n // 2] - x[: n // 2])
    assert contrast**2 / ((x - x.mean()) ** 2).sum() == pytest.approx(shapiro(x).statistic, abs=1e-9)


def prada_by_the_paper(asked):
    """Algorithm 3, line by line."""
    grown, noted, threshold, distances, scores = {}, {}, {}, [], []
    for x, c in zip(asked.pixels.reshape(len(asked), -1) / 255, asked.answers.argmax(axis=1), strict=True):
        if c not in grown:
            grown[c], noted[c], threshold[c] = [x], [0.0], 0.0
        else:
            least = min(np.linalg.norm(x - y) for y in grown[c])
            distances.append(least)
            if least > threshold[c]:
                grown[c].append(x)
                noted[c].append(least)
                threshold[c] = max(threshold[c], np.mean(noted[c]) - np.std(noted[c]))
        d = np.array(distances)
        if len(d) > LEAST:
            kept = d[np.abs(d - d.mean()) <= 3 * d.std()]
            scores.append(1 - shapiro(kept).statistic)
        else:
            scores.append(np.nan)
    return np.array(scores)


def test_prada_is_algorithm_3(draw, rng):
    asked = Pictures.join([draw(120), draw(60, 200.0, 5.0), draw(60, 90.0, 90.0)])[rng.permutation(240)]
    expected = prada_by_the_paper(asked)
    np.testing.assert_allclose(scores_of(PradaScores, asked), expected, atol=1e-5)
    np.testing.assert_allclose(chunked(PradaScores, asked, [1, 7, 100, 0, 31]), expected, atol=1e-5)
    assert np.isfinite(expected[-100:]).all()


def test_prada_has_nothing_to_say_of_one_picture_again_and_again(draw):
    asked = draw(1)[np.zeros(300, int)]
    assert np.nanmax(scores_of(PradaScores, asked)) == 0


def test_pradas_threshold_spares_every_trusted_client(draw, world):
    trusted = [draw(200) for _ in range(5)]
    rival = fit_prada(world, trusted)
    assert [rival.alarm(asked) for asked in trusted] == [None] * 5
    assert (
        sum(fit_prada(world, trusted, false_positives=0.4).alarm(asked) is not None for asked in trusted) == 2
    )


def test_mmd_is_the_unbiased_estimate_of_each_window(draw, world):
    sample, width = BenignSample.of(world.reference.embeddings), 20
    asked = draw(130, 150.0)
    x = asked.embeddings.astype(np.float64)
    expected = np.full(130, np.nan)
    for end in range(width, 131):
        window = x[end - width : end]
        within = np.exp(-sample.gamma * ((window[:, None] - window) ** 2).sum(axis=2))
        across = np.exp(-sample.gamma * ((window[:, None] - sample.embeddings) ** 2).sum(axis=2))
        pairs = (within.sum() - width) / (width * (width - 1))
        expected[end - 1] = pairs - 2 * across.mean() + sample.within
    for sizes in ([], [1, 19, 1, 40, 5], [15, 3, 0, 2, 90]):
        found = chunked(lambda: MmdScores(sample, width), asked, sizes)
        np.testing.assert_allclose(found, expected, atol=2e-6)


def test_hardness_is_the_checkpoint_from_which_on_the_label_stays(draw):
    class Fixed:
        def __init__(self, labels):
            self.labels = np.array(labels)

        def scores(self, pixels):
            return np.eye(3, dtype=np.float32)[self.labels]

    asked = draw(4)
    table = [[0, 0, 0, 0, 0], [1, 0, 0, 0, 0], [2, 0, 1, 1, 1], [0, 1, 0, 1, 0]]  # one row a picture
    hardness = Hardness(tuple(Fixed(column) for column in zip(*table, strict=True)))
    assert hardness.degrees(asked).tolist() == [0, 1, 2, 4]
    hardness.checkpoints[0].labels = None  # known by now
    assert hardness.degrees(asked[np.array([3, 0])]).tolist() == [4, 0]


def test_pearson_distance_is_one_minus_the_correlation(rng):
    histograms, honest = rng.integers(0, 20, (5, 8)).astype(float), rng.integers(0, 90, 8).astype(float)
    expected = [1 - np.corrcoef(each, honest)[0, 1] for each in histograms]
    np.testing.assert_allclose(pearson_distance(histograms, honest), expected)
    assert pearson_distance(np.full((1, 8), 3.0), honest).tolist() == [1.0]


def test_hoda_speaks_when_a_lot_is_full(draw, victims):
    asked, honest = draw(65), np.arange(6.0)
    scores = chunked(lambda: HodaScores(Hardness(victims.checkpoints), honest, 20), asked, [3, 30, 1])
    assert np.flatnonzero(np.isfinite(scores)).tolist() == [19, 39, 59]
    degrees = Hardness(victims.checkpoints).degrees(asked)[20:40]
    lot = np.bincount(degrees, minlength=6).astype(float)
    assert scores[39] == pytest.approx(pearson_distance(lot[None], honest)[0])


def test_hoda_wants_five_checkpoints(draw, victims, world):
    world.victim = Victim(victims.model, victims.classes, victims.checkpoints[:3])
    with pytest.raises(RedteamError, match=r"hoda-50: .* 4 checkpoints .* 5 are needed"):
        fit_hoda(world, [draw(60)], width=50)


def test_window_mean_slides_by_one(draw):
    asked = draw(140)
    levels = brightness(asked)
    for sizes in ([], [30, 30, 1], [1, 49, 60]):
        found = chunked(lambda: WindowMean(brightness), asked, sizes)
        assert np.isnan(found[: MEAN_WIDTH - 1]).all()
        expected = [levels[end - MEAN_WIDTH : end].mean() for end in range(MEAN_WIDTH, 141)]
        np.testing.assert_allclose(found[MEAN_WIDTH - 1 :], expected)


def test_add_is_the_weighted_frechet_distance_of_each_window(draw, world, victims):
    normals = ClassNormals.of(victims, world.reference)
    asked = draw(60, 110.0, 70.0)
    features, classes = normals.extract(asked), asked.answers.argmax(axis=1)
    assert np.unique(classes).size > 1
    expected = np.full(60, np.nan)
    for end in range(WIDTH, 61):
        total = 0.0
        for label in np.unique(classes[end - WIDTH : end]):
            own = features[end - WIDTH : end][classes[end - WIDTH : end] == label]
            spread = np.cov(own, rowvar=False, bias=True)
            known = normals.covariances[label]
            root = np.trace(sqrtm(known @ spread + 1e-14 * np.eye(len(known)))).real
            apart = ((own.mean(axis=0) - normals.means[label]) ** 2).sum()
            total += len(own) / WIDTH * (apart + np.trace(known) + np.trace(spread) - 2 * root)
        expected[end - 1] = total
    for sizes in ([], [5, 9, 1, 1, 1], [16]):
        found = chunked(lambda: AddScores(normals), asked, sizes)
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_seat_counts_queries_that_resemble_an_earlier_one(draw, victims):
    asked = draw(40)
    repeats = Pictures.join([asked, asked[np.array([3, 3, 7])], draw(2)])
    encoder = SimilarityEncoder(victims.model[:-1])
    scores = chunked(lambda: SeatScores(encoder, 1e-3), repeats, [10, 32])
    assert scores[38:].tolist() == [0, 0, 1, 2, 3, 3, 3]


def test_seats_encoder_draws_perturbed_pictures_closer_than_others(draw, victims, rng):
    pixels = draw(256).pixels
    before = SimilarityEncoder(deepcopy(victims.model[:-1]))
    after = SimilarityEncoder.train(victims, pixels, reach=0.2, epochs=60)
    noisy = (pixels + rng.integers(-20, 21, pixels.shape)).clip(0, 255).astype(np.uint8)

    def contrast(encoder):
        home = encoder(pixels)
        moved = np.linalg.norm(encoder(noisy) - home, axis=1)
        return moved.mean() / np.linalg.norm(np.roll(home, 1, axis=0) - home, axis=1).mean()

    assert contrast(after) < contrast(before)
    np.testing.assert_array_equal(SimilarityEncoder(victims.model[:-1])(pixels), before(pixels))


def test_an_alarm_names_the_first_query_over_the_threshold(draw):
    class Counting:
        count = 0

        def push(self, asked):
            self.count += len(asked)
            return np.arange(self.count - len(asked), self.count, dtype=float)

    asked = draw(3)[np.zeros(2 * CHUNK + 9, int)]
    assert Watch("w", 5.0, Counting).alarm(asked) == 7
    assert Watch("w", CHUNK + 3.5, Counting).alarm(asked) == CHUNK + 5
    assert Watch("w", 3.0 * CHUNK, Counting).alarm(asked) is None
    assert Watch("w", 0.0, Counting).alarm(asked[:0]) is None


@pytest.mark.parametrize("name", sorted(RIVALS))
def test_every_rival_fits_on_trusted_streams_and_tells_the_obvious_apart(name, draw, world):
    trusted = [draw(520) for _ in range(4)]
    rival = RIVALS[name](world, trusted)
    assert rival.name == name
    false_alarms = [rival.alarm(asked) for asked in trusted if rival.alarm(asked)]
    assert not false_alarms or name.startswith("mmd")
    if name in {"mmd-100", "mmd-500", "pixel-mean", "knn-mean", "add"}:
        alarm = rival.alarm(draw(600, 240.0, 10.0))
        assert alarm is not None
        assert 1 <= alarm <= 520


@pytest.mark.parametrize("name", sorted(RIVALS))
def test_too_little_trusted_traffic_is_said(name, draw, world):
    with pytest.raises(RedteamError, match="trusted clients asked"):
        RIVALS[name](world, [draw(1)])
