"""`banken fit`: from reference images to the baseline in force."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

import storage.baselines
from console.options import AsJson, ConfigFile, DatabaseUrl, Device, EncoderSpec, LogFormat
from console.output import clean, error_console, out, print_json
from console.settings import Settings, load_settings
from detector.baseline import Baseline
from storage.database import Database
from storage.records import BaselineDraft, BaselineRecord
from streams.embedding import Embedder
from streams.fitting import Fitted
from streams.fitting import fit as fit_baseline

if TYPE_CHECKING:
    from embeddings.encoder import Encoder

__all__ = ["embedder_of", "fit", "fit_and_store", "summary_of"]


def fit(
    endpoint: Annotated[str, typer.Argument(help="Name of the endpoint, as the log has it.")],
    reference: Annotated[
        str,
        typer.Option(
            "--reference",
            metavar="DIR|FILE",
            help="What normal looks like: a directory of pictures, a Parquet file with an image column, "
            "or a log.",
        ),
    ],
    trusted: Annotated[
        str | None,
        typer.Option(
            "--trusted", metavar="LOG", help="A log of honest clients only; it sets the benign rates."
        ),
    ] = None,
    activate: Annotated[bool, typer.Option(help="Put the new baseline in force.")] = True,
    format_name: LogFormat = None,
    encoder: EncoderSpec = None,
    device: Device = None,
    as_json: AsJson = False,
    db: DatabaseUrl = None,
    config: ConfigFile = None,
) -> None:
    """Learn what normal looks like for one endpoint.

    About 2,000 sample images or more make a good reference; 300 are the least. Give a trusted history of
    known-honest clients where you have one: without it the benign rates are cautious defaults, and thieves
    are found a little later. Fitting again makes a new version; see `banken baselines`.
    """
    settings = load_settings(config, db=db, encoder=encoder, device=device)
    database = Database.open(settings.db)
    try:
        with embedder_of(settings) as embedder:
            fitted, record = fit_and_store(
                database, embedder, endpoint, reference, trusted, format_name=format_name, activate=activate
            )
    finally:
        database.close()
    if as_json:
        print_json([{"endpoint": endpoint, "version": record.version, **json.loads(record.summary)}])
        return
    rates = fitted.baseline.rates
    out.print(
        f"Baseline {clean(endpoint)} version {record.version}, {'' if record.active else 'not '}in force: "
        f"{fitted.reference:,} reference images, encoder {clean(fitted.baseline.encoder.name)}.",
        f"Honest clients look foreign in at most {rates.bound[0]:.1%} of their queries ({clean(rates.source)}"
        + (f", {rates.clients} clients, {rates.queries:,} queries)." if rates.share else ")."),
        sep="\n",
        markup=False,
    )
    for letter in fitted.skipped[:5]:
        error_console.print(f"skipped: {clean(letter.at)}: {clean(letter.reason)}", markup=False)
    if len(fitted.skipped) > 5:
        error_console.print(f"… and {len(fitted.skipped) - 5} more that cannot be used", markup=False)


def embedder_of(settings: Settings) -> Embedder:
    """Decoder threads and, once a picture comes, the encoder that the settings name."""

    def load() -> Encoder:
        from embeddings.encoder import Encoder  # noqa: PLC0415 (torch takes seconds, and embeddings need none)

        return Encoder.load(settings.encoder, device=settings.device)

    return Embedder(load, limits=settings.limits, threads=settings.decode_threads)


def fit_and_store(
    database: Database,
    embedder: Embedder,
    endpoint: str,
    reference: str,
    trusted: str | None,
    *,
    format_name: str | None = None,
    activate: bool = True,
) -> tuple[Fitted, BaselineRecord]:
    """Fit with a progress bar on the terminal, and store the result."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,} images"),
    )
    with Progress(
        *columns,
        TimeElapsedColumn(),
        console=error_console,
        transient=True,
        disable=not error_console.is_terminal,
    ) as progress:
        tasks = {
            "reference": progress.add_task("reading the reference", total=None),
            "trusted": progress.add_task(
                "reading the trusted history", total=None, visible=trusted is not None
            ),
        }
        fitted = fit_baseline(
            endpoint,
            reference,
            embedder,
            trusted=trusted,
            format_name=format_name,
            on_progress=lambda stage, done: progress.update(tasks[stage], completed=done),
        )
    baseline = fitted.baseline
    draft = BaselineDraft(
        endpoint=endpoint,
        content_hash=baseline.content_hash,
        encoder_name=baseline.encoder.name,
        encoder_weights=baseline.encoder.weights,
        dim=baseline.encoder.dim,
        created_at=time.time_ns() // 1_000_000,
        summary=json.dumps(summary_of(baseline, fitted), sort_keys=True),
        archive=baseline.to_bytes(),
    )
    with database.transaction() as connection:
        return fitted, storage.baselines.add(connection, draft, activate=activate)


def summary_of(baseline: Baseline, fitted: Fitted) -> dict[str, object]:
    """What `banken baselines show` prints of a baseline."""
    rates = baseline.rates
    return {
        "content_hash": baseline.content_hash,
        "encoder": baseline.encoder.name,
        "weights": baseline.encoder.weights,
        "dim": baseline.encoder.dim,
        "reference_images": fitted.reference,
        "fitted_on": len(baseline.domain.reference),
        "calibrated_on": len(baseline.held_out),
        "cells": len(baseline.domain.centroids),
        "calibration_groups": len(baseline.calibration.bounds) - 1,
        "near_duplicate": baseline.near_duplicate,
        "benign_bound": list(rates.bound),
        "benign_mean": list(rates.mean),
        "exposure_allowance": rates.allowance[0],
        "rates_from": rates.source,
        "trusted_clients": rates.clients,
        "trusted_queries": rates.queries,
        "share_of_clients": rates.share,
        "confidence": rates.confidence,
        "skipped": len(fitted.skipped),
    }
