"""Pusher's HTTP API: how a server publishes into the stream (Pusher's HTTP API reference; api version 1.0)."""

from __future__ import annotations

import hashlib
import hmac
from typing import Annotated, Any, TypeVar
from urllib.parse import parse_qsl

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from starlette.requests import Request

from airflow_provider_quoine.sandbox.pusher import CHANNEL
from airflow_provider_quoine.sandbox.refusals import Refusal
from airflow_provider_quoine.sandbox.rest import TheExchange
from airflow_provider_quoine.sandbox.stream import TheStream

_TOLERANCE = 600  # seconds by which auth_timestamp may be off
_LARGEST = 10 * 1024  # bytes of an event's data
_CHANNELS = 100  # of one event
_BATCH = 10  # events in one request

_Body = TypeVar("_Body", bound=BaseModel)
_ChannelName = Annotated[str, Field(pattern=f"^{CHANNEL.pattern}$")]


class _Publication(BaseModel):
    """What an event is, whatever it goes to; data is a string, as on the stream."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: Annotated[str, Field(min_length=1, max_length=200)]
    data: str
    socket_id: Annotated[str, Field(pattern=r"^\d+\.\d+$")] | None = None


class _Event(_Publication):
    channels: Annotated[list[_ChannelName], Field(min_length=1, max_length=_CHANNELS)]

    @model_validator(mode="before")
    @classmethod
    def _list_one(cls, given: Any) -> Any:
        """Take one ``channel`` for a list of it."""
        if not isinstance(given, dict) or "channel" not in given or "channels" in given:
            return given
        return {name: value for name, value in given.items() if name != "channel"} | {"channels": [given["channel"]]}


class _EventOfBatch(_Publication):
    channel: _ChannelName


class _Batch(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    batch: Annotated[list[_EventOfBatch], Field(max_length=_BATCH)]


def _parameters(request: Request) -> dict[str, str]:
    pairs = parse_qsl(request.scope["query_string"].decode("latin-1"), keep_blank_values=True)
    given = {name.lower(): value for name, value in pairs}
    if len(given) != len(pairs):
        raise Refusal(400, "A parameter of the query was sent twice")
    return given


async def _signed(request: Request, app_id: str, exchange: TheExchange) -> None:
    """Check who publishes; the signature is over the query as it was before it was escaped."""
    settings, given, body = exchange.settings, _parameters(request), await request.body()
    if app_id != settings.pusher_app_id:
        raise Refusal(404, f"Unknown app id {app_id}")
    if given.get("auth_key") != settings.pusher_key:
        raise Refusal(401, "Unknown auth_key")
    if given.get("auth_version") != "1.0":
        raise Refusal(401, "auth_version must be 1.0")
    signature = given.pop("auth_signature", "")
    query = "&".join(f"{name}={value}" for name, value in sorted(given.items()))
    signed = f"{request.method}\n{request.scope['path']}\n{query}"
    right = hmac.digest(settings.pusher_secret.encode(), signed.encode(), "sha256").hex()
    if not hmac.compare_digest(right.encode(), signature.encode()):
        raise Refusal(401, "auth_signature is not the HMAC-SHA256 of method, path and sorted query")
    stamp = given.get("auth_timestamp", "")
    if not stamp.isdecimal() or abs(exchange.now() - int(stamp)) > _TOLERANCE:
        raise Refusal(401, f"auth_timestamp is not within {_TOLERANCE} s of the server's time, {exchange.now():.0f}")
    md5 = hashlib.md5(body, usedforsecurity=False).hexdigest()
    if given.get("body_md5", "" if body else md5) != md5:
        raise Refusal(401, "body_md5 is not that of the body")


router = APIRouter(prefix="/apps/{app_id}", dependencies=[Depends(_signed)])


def _read(kind: type[_Body], body: bytes) -> _Body:
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        told = error.errors()[0]
        place = ".".join(map(str, told["loc"]))
        raise Refusal(400, f"{place}: {told['msg']}" if place else told["msg"]) from None


def _check_size(event: _Publication) -> None:
    if len(event.data.encode()) > _LARGEST:
        raise Refusal(413, f"The data of event {event.name} is larger than {_LARGEST} bytes")


def _check_attributes(parameters: dict[str, str]) -> bool:
    """Tell whether subscriptions are to be counted; only presence channels count users, and the exchange has none."""
    asked = {name for name in parameters.get("info", "").split(",") if name}
    if not asked <= {"subscription_count"}:
        raise Refusal(400, f"info may be subscription_count here, not {', '.join(sorted(asked))}")
    return bool(asked)


@router.post("/events")
async def trigger(request: Request, stream: TheStream) -> dict[str, Any]:
    """Publish one event to up to 100 channels; its ``channels``, or one ``channel``."""
    event = _read(_Event, await request.body())
    _check_size(event)
    for channel in event.channels:
        stream.publish(channel, event.name, event.data, except_for=event.socket_id)
    return {}


@router.post("/batch_events")
async def trigger_batch(request: Request, stream: TheStream) -> dict[str, Any]:
    """Publish up to 10 events, all or none of them."""
    events = _read(_Batch, await request.body()).batch
    for event in events:
        _check_size(event)
    for event in events:
        stream.publish(event.channel, event.name, event.data, except_for=event.socket_id)
    return {}


@router.get("/channels")
async def channels(request: Request, stream: TheStream) -> dict[str, Any]:
    """List the channels that have a subscriber."""
    parameters = _parameters(request)
    counted = _check_attributes(parameters)
    prefix = parameters.get("filter_by_prefix", "")
    found = {name: number for name, number in stream.subscribers().items() if name.startswith(prefix)}
    return {"channels": {name: {"subscription_count": number} if counted else {} for name, number in found.items()}}


@router.get("/channels/{channel}")
async def channel(request: Request, channel: str, stream: TheStream) -> dict[str, Any]:
    """Tell of one channel."""
    if not CHANNEL.fullmatch(channel):
        raise Refusal(400, "Invalid channel name")
    counted = _check_attributes(_parameters(request))
    number = stream.subscribers().get(channel, 0)
    return {"occupied": number > 0} | ({"subscription_count": number} if counted else {})
