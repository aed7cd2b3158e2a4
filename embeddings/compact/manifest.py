"""What the shipped weights were trained on: content digests, committed beside the weights.

`python -m embeddings.compact.manifest --data DIR` recomputes them and fails where they differ.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from embeddings.compact.sources import HELD_OUT, TRAINING, read

__all__ = ["Entry", "digest_of", "main", "read_manifest", "record", "write_manifest"]

MANIFEST = Path(__file__).parent / "manifest.json"


@dataclass(frozen=True, slots=True)
class Entry:
    """One source.

    Attributes:
        images: How many images it has.
        sha256: SHA-256 of the images' sorted content digests, one a line.
    """

    images: int
    sha256: str


def digest_of(digests: Iterable[str]) -> Entry:
    """Sum up content digests; their order does not matter."""
    ordered = sorted(digests)
    return Entry(len(ordered), hashlib.sha256("\n".join(ordered).encode()).hexdigest())


def record(data: Path) -> dict[str, dict[str, Entry]]:
    """Recompute the manifest: the training sources, and those that are held out."""
    return {
        part: {name: digest_of(example.digest for example in read(name, data)) for name in sources}
        for part, sources in (("training", TRAINING), ("held_out", HELD_OUT))
    }


def read_manifest() -> dict[str, dict[str, Entry]]:
    """The committed manifest."""
    stored = json.loads(MANIFEST.read_text("utf-8"))
    return {
        part: {name: Entry(**entry) for name, entry in sources.items()} for part, sources in stored.items()
    }


def write_manifest(data: Path, path: Path = MANIFEST) -> None:
    """Record the manifest of the inputs at hand."""
    found = record(data)
    plain = {
        part: {name: asdict(entry) for name, entry in entries.items()} for part, entries in found.items()
    }
    path.write_text(json.dumps(plain, indent=2) + "\n", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """Compare the inputs at hand with the committed manifest."""
    parser = argparse.ArgumentParser(prog="python -m embeddings.compact.manifest", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the parquet files")
    options = parser.parse_args(arguments)
    committed, found = read_manifest(), record(options.data)
    different = [
        name
        for part, entries in found.items()
        for name in entries
        if committed[part].get(name) != entries[name]
    ]
    if different:
        raise SystemExit(
            f"{', '.join(different)}: the content is not what manifest.json names; use the data and package "
            "versions of MODEL_CARD.md, or train anew and commit the new manifest with the weights"
        )
    print("all inputs are those of manifest.json")


if __name__ == "__main__":
    main()
