"""Image–text pairs: which concepts are true of which training image.

Two kinds of pairs come out of one list of concepts. The first are the images' own captions with their WordNet
hypernyms. The second come from the trunk's ImageNet classifier, which knows 1000 names of which the images
show 200: under equal class covariances its weight w_c is Σ⁻¹(μ_c − μ), so μ + Σw_c estimates the mean
feature of class c, and the classifier's own softmax on every training image is a teacher for the names.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from timm.data.imagenet_info import ImageNetInfo
from torch import nn

from embeddings.compact.captions import IMAGENET_CLASSES, concepts, load_wordnet, mentions
from embeddings.compact.features import FeatureSet

__all__ = ["Pairs", "build_pairs", "held_names", "held_texts", "imagenet_concepts"]

HELD_PER_SOURCE = 20
COARSE = frozenset({"tiny-imagenet-encoder-32", "cifar100-encoder"})
DECAY = 0.75  # a hypernym one step further up is sampled this much less often


@dataclass(frozen=True, slots=True)
class Pairs:
    """Training images and what is true of them.

    Attributes:
        features: Trunk features, float32, shape (n, 1280): images first, then estimated class means.
        coarse: bool, shape (n,): images of 32 × 32 pixels.
        concepts: All concepts, shape (c,).
        truths: float32, shape (n, c), rows sum to 1: how often a concept is drawn for an image; 0 is untrue.
        teacher: float32, shape (n, k): the ImageNet classifier's softmax over the k classes that stay in.
        taught: Index into `concepts` of the first name of each of the k classes, shape (k,).
    """

    features: np.ndarray
    coarse: torch.Tensor
    concepts: list[str]
    truths: torch.Tensor
    teacher: torch.Tensor
    taught: torch.Tensor


def held_names(sources: dict[str, FeatureSet]) -> dict[str, frozenset[str]]:
    """The labels whose images and names stay out of pairing, by source: those of the 20 smallest hashes."""
    held: dict[str, frozenset[str]] = {}
    for source in ("tiny-imagenet-encoder", "cifar100-encoder"):
        labels = sorted(
            set(sources[source].captions), key=lambda label: hashlib.sha256(label.encode()).hexdigest()
        )
        held[source] = frozenset(labels[:HELD_PER_SOURCE])
    return held


def held_texts(sources: dict[str, FeatureSet]) -> frozenset[str]:
    """The first name of each held label, lower case: captions that mention one stay out of pairing."""
    return frozenset(
        label.split(",")[0].lower() for labels in held_names(sources).values() for label in labels
    )


def imagenet_concepts() -> list[list[str]]:
    """Per ImageNet class, in the classifier's order: its lemmas, then its hypernyms."""
    names, wordnet = ImageNetInfo("imagenet-1k"), load_wordnet()
    found = []
    for index in range(IMAGENET_CLASSES):
        synset = wordnet.synsets[int(names.index_to_label_name(index)[1:])]
        found.append(list(dict.fromkeys([*synset.lemmas, *wordnet.hypernyms(synset.offset)])))
    return found


def build_pairs(sources: dict[str, FeatureSet], classifier: nn.Linear, held: frozenset[str]) -> Pairs:
    """Pair the training images with all that is true of them.

    Args:
        sources: Features of the training sources.
        classifier: The trunk's ImageNet classifier.
        held: Names whose images and mentions are left out.
    """
    features, sharp, coarse, truths = [], [], [], []
    for source, given in sources.items():
        spoken = {caption: concepts(caption, source) for caption in set(given.captions)}
        usable = {
            caption for caption, texts in spoken.items() if texts and not _any_mentions(texts[:3], held)
        }
        kept = [row for row, caption in enumerate(given.captions) if caption in usable]
        features.append(given.features[kept])
        # The teacher sees the shrunk images at their full size.
        teacher_sees = "tiny-imagenet-encoder" if source == "tiny-imagenet-encoder-32" else source
        sharp.append(sources[teacher_sees].features[kept])
        coarse += [source in COARSE] * len(kept)
        truths += [spoken[given.captions[row]] for row in kept]
    images = np.concatenate(features)
    classes = imagenet_concepts()
    staying = [i for i, texts in enumerate(classes) if not _any_mentions(texts[:4], held)]
    weight, bias = classifier.weight.detach().numpy(), classifier.bias.detach().numpy()
    photographs = sources["tiny-imagenet-encoder"].features
    means = photographs.mean(0) + (weight - weight.mean(0)) @ _within(sources["tiny-imagenet-encoder"])
    every = np.concatenate([images, means[staying]]).astype(np.float32)
    truths += [classes[i] for i in staying]
    coarse += [False] * len(staying)
    seen = np.concatenate([*sharp, means[staying]]).astype(np.float32)
    logits = torch.from_numpy(seen @ weight[staying].T + bias[staying])

    vocabulary = sorted({text for texts in truths for text in texts if not mentions(text, held)})
    index = {text: i for i, text in enumerate(vocabulary)}
    matrix = torch.zeros(len(every), len(vocabulary))
    for row, texts in enumerate(truths):
        for depth, text in enumerate(texts):
            if text in index:
                matrix[row, index[text]] = DECAY**depth
    matrix /= matrix.sum(1, keepdim=True).clamp_min(1e-9)
    taught = torch.tensor([index[classes[i][0]] for i in staying])
    return Pairs(every, torch.tensor(coarse), vocabulary, matrix, logits.softmax(1), taught)


def _any_mentions(texts: list[str], names: frozenset[str]) -> bool:
    return any(mentions(text, names) for text in texts)


def _within(given: FeatureSet) -> np.ndarray:
    """Covariance of the features about their class means, shape (1280, 1280)."""
    _, label = np.unique(given.captions, return_inverse=True)
    means = np.stack([given.features[label == i].mean(0) for i in range(label.max() + 1)])
    covariance: np.ndarray = np.cov(given.features - means[label], rowvar=False)
    return covariance
