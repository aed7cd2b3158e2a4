"""Banken's own format: one JSON object a line."""

from __future__ import annotations

import binascii
import json
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from streams.errors import ParseError
from streams.events import Coordinates, QueryEvent, Response
from streams.formats import fields
from streams.formats.format import Format, json_object
from streams.sources.source import Record

__all__ = ["Native", "encode_native"]

LONGEST_URI = 8192
LONGEST_TEXT = 65536
_KEYS = frozenset({"id", "time", "client", "endpoint", "image", "text", "embedding"})


class Native(Format):
    """One query a line; the keys are those of DESIGN §7, and unknown ones are ignored.

    Strings stay as they are: an ``id`` of 7 is an error, not ``"7"``, because two ids must never become one.
    """

    name = "native"

    def recognises(self, value: bytes | Mapping[str, object]) -> bool:
        """Whether at least three of our keys are there."""
        if isinstance(value, Mapping):
            return False
        try:
            return len(_KEYS & json_object(value).keys()) >= 3
        except ParseError:
            return False

    def read(self, record: Record) -> Sequence[QueryEvent]:
        """Read one line.

        Returns:
            Exactly one event.

        Raises:
            ParseError: with the first fault found.
        """
        if not isinstance(record.value, bytes):
            raise ParseError("a table row is no line of JSON; read it with --format parquet")
        line = json_object(record.value)
        event_id = fields.string(line.get("id"), "id")
        try:
            return (_event(event_id, line, record.at),)
        except ParseError as error:
            error.event_id = event_id
            raise


def _event(event_id: str, line: dict[str, object], at: Coordinates) -> QueryEvent:
    return QueryEvent(
        id=event_id,
        time=fields.time_ms(line.get("time")),
        client=fields.string(line.get("client"), "client"),
        endpoint=fields.string(line.get("endpoint"), "endpoint"),
        at=at,
        response=_response(line.get("response")),
        attributes=fields.attributes(line.get("attributes")),
        **_payload(line),
    )


def _response(answer: object) -> Response | None:
    return fields.response(answer.get("label"), answer.get("scores")) if isinstance(answer, dict) else None


def _payload(line: dict[str, object]) -> dict[str, Any]:
    """Read the one payload of a line, as keyword arguments of `QueryEvent`."""
    image, text, embedding = line.get("image"), line.get("text"), line.get("embedding")
    b64 = uri = None
    if image is not None:
        if not isinstance(image, dict):
            raise ParseError(
                f'image must be an object, {{"b64": …}} or {{"uri": …}}, not {fields.kind(image)}'
            )
        b64, uri = image.get("b64"), image.get("uri")
    payloads = {"image.b64": b64, "image.uri": uri, "text": text, "embedding": embedding}
    given = [name for name, value in payloads.items() if value is not None]
    if len(given) != 1:
        has = f"has {' and '.join(given)}" if given else "has none"
        raise ParseError(
            f"exactly one of image.b64, image.uri, text and embedding is needed; the record {has}"
        )
    if b64 is not None:
        return {"image": fields.base64_image(b64)}
    if uri is not None:
        return {"uri": fields.string(uri, "image.uri", LONGEST_URI)}
    if text is not None:
        return {"text": fields.string(text, "text", LONGEST_TEXT)}
    encoder = line.get("encoder")
    if encoder is None:
        raise ParseError("embedding needs encoder, the weights hash of the encoder that made it")
    return {"embedding": fields.embedding(embedding), "encoder": fields.string(encoder, "encoder")}


def encode_native(event: QueryEvent) -> bytes:
    """Write an event as one line, so that `Native` reads the same event back.

    Returns:
        UTF-8 JSON with its line end.
    """
    line: dict[str, object] = {
        "id": event.id,
        "time": _iso(event.time),
        "client": event.client,
        "endpoint": event.endpoint,
    }
    if event.image is not None:
        line["image"] = {"b64": binascii.b2a_base64(event.image, newline=False).decode()}
    if event.uri is not None:
        line["image"] = {"uri": event.uri}
    if event.text is not None:
        line["text"] = event.text
    if event.embedding is not None:
        line["embedding"] = event.embedding.tolist()
        line["encoder"] = event.encoder
    if event.response is not None:
        line["response"] = {"label": event.response.label, "scores": dict(event.response.scores)}
    if event.attributes:
        line["attributes"] = dict(event.attributes)
    return json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _iso(milliseconds: int) -> str:
    moment = fields.EPOCH + timedelta(milliseconds=milliseconds)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
