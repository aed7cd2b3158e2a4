"""What can be said of an image: labels, file names, ImageNet synonyms and WordNet hypernyms.

A caption source knows one narrow name ("golden retriever"); an analyst asks with a wide one ("dog"). WordNet
(Fellbaum 1998) bridges them: a name is looked up as a noun, and its hypernyms become captions too.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from timm.data.imagenet_info import ImageNetInfo

__all__ = [
    "IMAGENET_CLASSES",
    "Synset",
    "WordNet",
    "clean",
    "concepts",
    "file_name_words",
    "load_wordnet",
    "mentions",
]

WORDNET = Path("/usr/share/wordnet")
# Lexicographer files whose nouns can be seen: animal, artifact, body, food, object, person, phenomenon,
# plant, shape, substance.
VISIBLE = frozenset({5, 6, 8, 13, 17, 18, 19, 20, 25, 27})
_PICTURED = {5: 0, 18: 2, 19: 2, 27: 2}  # animals first; persons, phenomena and substances last
IMAGENET_CLASSES = 1_000
NAMES = 3  # synonyms of one synset that become captions
# Above these a hypernym says nothing that can be seen.
TOO_WIDE = frozenset(
    [
        "entity",
        "physical entity",
        "abstraction",
        "object",
        "whole",
        "living thing",
        "organism",
        "matter",
        "thing",
        "unit",
        "causal agent",
        "artifact",
        "instrumentality",
        "group",
        "attribute",
        "substance",
        "relation",
        "psychological feature",
        "measure",
    ]
)


@dataclass(frozen=True, slots=True)
class Synset:
    """One WordNet noun sense: its lemmas, the most frequent first, and its direct hypernyms."""

    offset: int
    lexicographer: int
    lemmas: tuple[str, ...]
    hypernyms: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class WordNet:
    """WordNet's nouns by offset, and the senses of a word in their order of frequency."""

    synsets: dict[int, Synset]
    senses: dict[str, list[int]] = field(default_factory=dict)

    def hypernyms(self, offset: int) -> list[str]:
        """The names of all hypernyms of a synset, the nearest first, without those that are too wide."""
        found: list[str] = []
        level = [offset]
        while level:
            level = [wider for near in level for wider in self.synsets[near].hypernyms]
            found += [name for wider in level for name in self.synsets[wider].lemmas[:NAMES]]
        return [name for name in dict.fromkeys(found) if name not in TOO_WIDE]

    def sense(self, name: str) -> Synset | None:
        """The visible sense of a name that a picture most likely means; of its last word if it is unknown.

        WordNet orders senses by how often they are written, where a whale is first of all a large person and
        an otter its fur. A picture shows the animal, or else the thing, if there is one.
        """
        for word in (name, name.rstrip("s"), name.rsplit(" ", maxsplit=1)[-1]):
            found = [self.synsets[offset] for offset in self.senses.get(word, [])]
            found = [synset for synset in found if synset.lexicographer in VISIBLE]
            if found:
                return min(found, key=lambda synset: _PICTURED.get(synset.lexicographer, 1))
        return None


@lru_cache(maxsize=1)
def load_wordnet(folder: Path = WORDNET) -> WordNet:
    """Read the nouns of WordNet 3.0 (Debian: `wordnet-base`)."""
    synsets: dict[int, Synset] = {}
    for line in (folder / "data.noun").read_text(encoding="utf-8").splitlines():
        if line.startswith("  "):  # the licence stands at the head of the file
            continue
        fields = line.partition(" | ")[0]
        parts = fields.split(" ")
        count = int(parts[3], 16)
        lemmas = tuple(parts[4 + 2 * i].replace("_", " ").lower() for i in range(count))
        pointers = parts[5 + 2 * count :]
        wider = tuple(int(pointers[i + 1]) for i in range(len(pointers) - 1) if pointers[i] in ("@", "@i"))
        synsets[int(parts[0])] = Synset(int(parts[0]), int(parts[1]), lemmas, wider)
    senses: dict[str, list[int]] = defaultdict(list)
    for line in (folder / "index.noun").read_text(encoding="utf-8").splitlines():
        if not line.startswith("  "):
            parts = line.split()
            senses[parts[0].replace("_", " ")] = [int(part) for part in parts[-int(parts[2]) :]]
    return WordNet(synsets, dict(senses))


def clean(caption: str) -> str:
    """A caption as plain words: lower case, no article, numbers or file-name punctuation."""
    words = re.sub(r"[_\-]+", " ", caption.lower())
    words = re.sub(r"\(.*?\)|[^a-z' ]", " ", words)
    words = re.sub(r"^\s*(an?|the)\s+", "", words)
    return " ".join(words.split())


def file_name_words(stem: str, wordnet: WordNet) -> str:
    """The leading words of a file name that WordNet knows as nouns, or an empty text.

    File names of Open Clip Art end in their author's name ("magic_hat_and_wand_nath_r"). Which words are the
    author's cannot be told in general.
    """
    kept: list[str] = []
    for word in clean(stem).split():
        if word in wordnet.senses or word.rstrip("s") in wordnet.senses or (kept and word in _LINKS):
            kept.append(word)
        else:
            break
    return " ".join(kept)


_LINKS = frozenset(
    [
        "and",
        "of",
        "with",
        "in",
        "on",
        "the",
        "a",
        "black",
        "white",
        "red",
        "green",
        "blue",
        "yellow",
        "big",
        "small",
    ]
)


def concepts(caption: str, source: str) -> list[str]:
    """All captions of one image, the narrowest first: its own names, then their hypernyms."""
    wordnet = load_wordnet()
    if source.startswith("openclipart"):
        names = [file_name_words(caption, wordnet)]
    elif source.startswith("tiny-imagenet"):
        names = [name.strip().lower() for name in caption.split(",")]
        synset = wordnet.synsets[_imagenet_offsets()[caption]]
        return list(dict.fromkeys([*names[:NAMES], *wordnet.hypernyms(synset.offset)]))
    else:
        names = [clean(caption)]
    names = [name for name in names if len(name) > 1]
    wider: list[str] = []
    for name in names[:1]:
        sense = wordnet.sense(name)
        if sense is not None:
            wider = [*sense.lemmas[:2], *wordnet.hypernyms(sense.offset)]
    return list(dict.fromkeys(names + wider))


@lru_cache(maxsize=1)
def _imagenet_offsets() -> dict[str, int]:
    """ImageNet labels as Tiny-ImageNet writes them (all lemmas of a synset), to WordNet offsets."""
    info = ImageNetInfo("imagenet-1k")
    return {
        info.index_to_description(i): int(info.index_to_label_name(i)[1:]) for i in range(IMAGENET_CLASSES)
    }


def mentions(text: str, names: frozenset[str]) -> bool:
    """Whether a text names one of `names` as whole words (a plural counts)."""
    padded = f" {' '.join(re.sub(r'[^a-z ]', ' ', text.lower()).split())} "
    return any(f" {name} " in padded or f" {name}s " in padded for name in names)
