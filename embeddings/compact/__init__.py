"""banken-compact: a small CLIP that ships with the product, and how it was made.

The product reads `banken-compact.json`, `weights.safetensors`, `vocabulary.txt` and `templates.txt`. The
modules train and measure; nothing in the product imports them.
"""

from __future__ import annotations
