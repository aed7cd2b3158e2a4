"""The page about the demo data: what it is, whence it came, and the truth about every client."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from redteam.garments_clients import CAMPAIGN_NETWORK, OFFICE_NETWORK, Shot
from redteam.garments_files import PixelAuroc

__all__ = ["demo_page"]

_PAGE = """\
# The demo data

A made-up endpoint, `garments`, names the garment in a picture of 28 × 28 grey pixels. Four files say what
normal looks like, what honest clients asked before, and what everybody asked during ten simulated days.
This page is written by the script that makes them.

| file | rows | bytes | what |
|---|---|---|---|
| `reference.parquet` | {reference} | 200 garments of each of the ten labels, with their true names |
| `trusted.parquet` | {trusted} | a trusted history: {earlier} honest clients, none of them in the log |
| `log.parquet` | {log} | the log to watch: {clients} clients, {honest} honest, {thieves} not |
| `truth.parquet` | {truth} | who is what, with the ids of the pictures that show no garment |

`trusted.parquet` and `log.parquet` have the columns `id`, `time` (ISO 8601, UTC), `client`, `endpoint`,
`image` (PNG), `label` and `scores` (the answer; `scores` is a JSON object of the top three), `org`, `ip`
and `user_agent` (null where unknown). `redteam.garments.write_native` turns them into native JSONL.

## Sources and licences

- **Fashion-MNIST**, Zalando SE, MIT licence; Debian package `dataset-fashion-mnist`. Exact duplicates are
  dropped. The reference and the classifier use disjoint pictures of its training part; the trusted history
  and the log use disjoint halves of its test part. Some queries are changed copies (near-duplicate bursts).
- **Open Clip Art Library**, dedicated to the public domain; Debian package `openclipart-png`. Only files
  whose SHA-256 begins with an odd hexadecimal digit are used; an encoder that trains on the other half has
  seen none of them.
- Test cards and screenshots of the new integrator are drawn by the script.

The MIT licence of Fashion-MNIST:

> The MIT License (MIT). Copyright © 2017 Zalando SE, https://tech.zalando.com
>
> Permission is hereby granted, free of charge, to any person obtaining a copy of this software and
> associated documentation files (the "Software"), to deal in the Software without restriction, including
> without limitation the rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
> copies of the Software, and to permit persons to whom the Software is furnished to do so, subject to the
> following conditions: The above copyright notice and this permission notice shall be included in all
> copies or substantial portions of the Software.
>
> THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT
> LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO
> EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER
> IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR
> THE USE OR OTHER DEALINGS IN THE SOFTWARE.

## Made by

```
python -m redteam.garments --fashion /usr/share/datasets/fashion-mnist \\
    --clipart /usr/share/openclipart/png --out console/demo
```

Everything is seeded. On one machine, with the same versions of the libraries, the files come out the same
byte for byte; elsewhere the last digits of a score may differ.

| file | SHA-256 |
|---|---|
{digests}

**Answers** are those of a small CNN trained by the script on the rest of the training part. It names
{accuracy:.1%} of the 10,000 test pictures correctly. Its weights do not ship.

**Drawings** are grey, 28 × 28, an object on black. Each has the exact grey-value histogram of a randomly
drawn garment, so no statistic of single pixel values can find them on average. Measured on the thieves'
{drawings} drawings against the {garments} garments of the log, area under the ROC curve (0.5 says nothing):

| statistic | AUROC |
|---|---|
| mean grey value | {auroc.mean:.3f} |
| its distance from the reference | {auroc.mean_distance:.3f} |
| standard deviation | {auroc.deviation:.3f} |
| its distance from the reference | {auroc.deviation_distance:.3f} |
| share above the background | {auroc.foreground:.3f} |
| edge strength (shape; not matched) | {auroc.edges:.3f} |

**Addresses** are of ranges set aside for documentation and benchmarks; organisations are made up.
{office}.0/24 is an honest office of six clients; {campaign}.0/24 is the campaign's. The stolen key asks
from another network once it is stolen. The clients of the trusted history:
{habits}.

## Clients of the log

*Foreign* counts queries that show no garment; a health check repeats one such picture. The network is that
of the client's last query. A new integrator may be suspected and must not be alerted.

| client | role | honest | queries | foreign | organisation | network |
|---|---|---|---|---|---|---|
{clients_table}
"""


def demo_page(
    truth: Sequence[Mapping[str, Any]],
    trusted: Sequence[Shot],
    *,
    accuracy: float,
    auroc: PixelAuroc,
    digests: Mapping[str, str],
    sizes: Mapping[str, tuple[int, int]],
) -> str:
    """Write ``DATA.md``.

    Args:
        truth: rows of ``TRUTH_SCHEMA``.
        trusted: the queries of the trusted history.
        accuracy: of the endpoint's classifier on test pictures, in [0, 1].
        auroc: what pixel statistics find.
        digests: SHA-256 by file name.
        sizes: rows and bytes by file name.
    """
    measures = {name.partition(".")[0]: f"{rows:,} | {size:,}" for name, (rows, size) in sizes.items()}
    earlier = {shot.client.name: shot.client.role.partition(":")[0] for shot in trusted}
    habits = ", ".join(f"{number} {role}" for role, number in sorted(Counter(earlier.values()).items()))
    return _PAGE.format(
        **measures,
        earlier=len(earlier),
        habits=habits,
        clients=len(truth),
        honest=sum(row["honest"] for row in truth),
        thieves=sum(not row["honest"] for row in truth),
        digests="\n".join(f"| `{name}` | `{digest}` |" for name, digest in digests.items()),
        accuracy=accuracy,
        auroc=auroc,
        drawings=f"{auroc.drawings:,}",
        garments=f"{auroc.garments:,}",
        office=OFFICE_NETWORK,
        campaign=CAMPAIGN_NETWORK,
        clients_table="\n".join(map(_line, truth)),
    )


def _line(row: Mapping[str, Any]) -> str:
    role = (
        row["role"] if row["turned_after"] is None else f"{row['role']} (after {row['turned_after']} queries)"
    )
    cells = (
        f"`{row['client']}`",
        role,
        "yes" if row["honest"] else "no",
        row["queries"],
        len(row["foreign"]),
        row["org"] or "–",
        row["network"],
    )
    return f"| {' | '.join(map(str, cells))} |"
