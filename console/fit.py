"""`banken fit`: from reference images, or from prompts, to the baseline in force."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

import storage.baselines
from console.opening import opened
from console.options import AsJson, ConfigFile, DatabaseUrl, Device, EncoderSpec, LogFormat
from console.output import clean, error_console, out, print_json
from console.settings import Settings, load_settings
from detector.baseline import MINIMUM_REFERENCE, Baseline
from detector.signals import CHANNELS
from storage.database import Database
from storage.records import BaselineDraft, BaselineRecord
from streams.embedding import Embedder
from streams.fitting import Fitted, fit_prompts
from streams.fitting import fit as fit_baseline

if TYPE_CHECKING:
    from embeddings.encoder import Encoder

__all__ = ["embedder_of", "fit", "fit_and_store", "summary_of", "warnings_of"]


def fit(
    endpoint: Annotated[str, typer.Argument(help="Name of the endpoint, as the log has it.")],
    reference: Annotated[
        str | None,
        typer.Option(
            "--reference",
            metavar="DIR|FILE",
            help="What normal looks like: a directory of pictures, a Parquet file with an image column, "
            f"or a log. At least {MINIMUM_REFERENCE} distinct pictures.",
        ),
    ] = None,
    prompts: Annotated[
        str | None,
        typer.Option(
            "--prompts",
            metavar="FILE",
            help='Where there are no pictures: what normal is in words, one a line, such as "a coat". '
            "Much weaker than pictures.",
        ),
    ] = None,
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

    About 2,000 sample images or more make a good reference. Give a trusted history of
    known-honest clients where you have one: without it the benign rates are cautious defaults, and thieves
    are found a little later. Fitting again makes a new version; see `banken baselines`.

    Give either --reference or --prompts. Words find much less than pictures:
    docs/prompts.md says how much.
    """
    declared = _declared(reference, prompts)
    settings = load_settings(config, db=db, encoder=encoder, device=device)
    with opened(settings) as database, embedder_of(settings) as embedder:
        fitted, record = fit_and_store(
            database,
            embedder,
            endpoint,
            declared,
            trusted,
            by_prompts=prompts is not None,
            format_name=format_name,
            activate=activate,
        )
    if as_json:
        print_json([{"endpoint": endpoint, "version": record.version, **json.loads(record.summary)}])
        return
    rates = fitted.baseline.rates
    by = f"{len(fitted.prompts)} prompts" if fitted.prompts else f"{fitted.reference:,} reference images"
    out.print(
        f"Baseline {clean(endpoint)} version {record.version}, {'' if record.active else 'not '}in force: "
        f"{by}, encoder {clean(fitted.baseline.encoder.name)}.",
        f"Honest clients look foreign in at most {rates.bound[0]:.1%} of their queries "
        f"({clean(rates.channels[0].source)}"
        + (
            f", {rates.channels[0].clients} clients, {rates.channels[0].queries:,} queries)."
            if rates.share
            else ")."
        ),
        sep="\n",
        markup=False,
    )
    if fitted.prompts:
        error_console.print(
            "Words find much less than pictures; fit again with --reference once you have some.",
            markup=False,
        )
    for warning in warnings_of(fitted):
        error_console.print(f"warning: {clean(warning)}", markup=False)
    for letter in fitted.skipped[:5]:
        error_console.print(f"skipped: {clean(letter.at)}: {clean(letter.reason)}", markup=False)
    if len(fitted.skipped) > 5:
        error_console.print(f"… and {len(fitted.skipped) - 5} more that cannot be used", markup=False)


def _declared(reference: str | None, prompts: str | None) -> str:
    """The one of both that was given."""
    given = [one for one in (reference, prompts) if one is not None]
    if len(given) != 1:
        raise typer.BadParameter(
            "give exactly one of them: --reference where there are pictures, --prompts where there are none",
            param_hint="--reference / --prompts",
        )
    return given[0]


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
    declared: str,
    trusted: str | None,
    *,
    by_prompts: bool = False,
    format_name: str | None = None,
    activate: bool = True,
) -> tuple[Fitted, BaselineRecord]:
    """Fit with a progress bar on the terminal, and store the result; `declared` is a reference or prompts."""
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
            "reference": progress.add_task("reading the reference", total=None, visible=not by_prompts),
            "trusted": progress.add_task(
                "reading the trusted history", total=None, visible=trusted is not None
            ),
        }
        fitted = (fit_prompts if by_prompts else fit_baseline)(
            endpoint,
            declared,
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


def warnings_of(fitted: Fitted) -> list[str]:
    """What the owner should look at before trusting the baseline."""
    warnings = []
    rates = fitted.baseline.rates
    if rates.outliers:
        more = f" and {len(rates.outliers) - 10} more" if len(rates.outliers) > 10 else ""
        warnings.append(
            f"left out of the trusted history, being unlike its other clients: "
            f"{', '.join(rates.outliers[:10])}{more}. Is one of them a thief? If they are honest, give a "
            "trusted history with more of their kind."
        )
    if fitted.trusted and not rates.share:
        warnings.append(rates.channels[0].source)
    if fitted.unasked:
        warnings.append(
            f"{len(fitted.unasked)} of {fitted.reference:,} reference images are of a kind that no trusted "
            f"client ever asked about, such as {', '.join(fitted.unasked[:3])}: is something foreign mixed "
            "in? Whoever asks for the like of them will be taken for honest."
        )
    return warnings


def summary_of(baseline: Baseline, fitted: Fitted) -> dict[str, object]:
    """What `banken baselines show` prints of a baseline."""
    rates = baseline.rates
    return {
        "content_hash": baseline.content_hash,
        "encoder": baseline.encoder.name,
        "weights": baseline.encoder.weights,
        "dim": baseline.encoder.dim,
        "declared_by": baseline.domain.kind,
        "prompts": list(fitted.prompts),
        "reference_images": fitted.reference,
        "fitted_on": baseline.domain.size,
        "calibrated_on": len(baseline.held_out),
        "cells": len(baseline.domain.centroids),
        "calibration_groups": len(baseline.calibration.bounds) - 1,
        "near_duplicate": baseline.near_duplicate,
        "share_of_clients": rates.share,
        "confidence": rates.confidence,
        "boundary_margin": rates.margin,
        "left_out": list(rates.outliers),
        "never_asked_about": len(fitted.unasked),
        "exam_images": 0 if baseline.exam is None else len(baseline.exam),
        **({} if fitted.no_exam is None else {"no_exam_because": fitted.no_exam}),
        "rates": [
            {
                "signal": channel.signal.value,
                "level": channel.level,
                "bound": rate.bound,
                "mean": rate.mean,
                "clients": rate.clients,
                "queries": rate.queries,
                "source": rate.source,
            }
            for channel, rate in zip(CHANNELS, rates.channels, strict=True)
        ],
        "skipped": len(fitted.skipped),
    }
