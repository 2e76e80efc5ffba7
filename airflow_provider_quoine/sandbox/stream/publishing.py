"""Pusher's HTTP API, version 1.0, through which servers publish events (Pusher's HTTP API reference)."""

from __future__ import annotations

import hashlib
import hmac
from typing import Annotated, Any, TypeVar
from urllib.parse import parse_qsl

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from starlette.requests import Request

from airflow_provider_quoine.sandbox.refusals import Refusal
from airflow_provider_quoine.sandbox.stream.hub import TheHub
from airflow_provider_quoine.sandbox.stream.protocol import CHANNEL

_TOLERANCE = 600  # seconds by which auth_timestamp may be off
_MAX_DATA_BYTES = 10 * 1024
_MAX_CHANNELS = 100  # per event
_MAX_EVENTS = 10  # per batch

_Body = TypeVar("_Body", bound=BaseModel)
_ChannelName = Annotated[str, Field(pattern=f"^{CHANNEL.pattern}$")]


class _Publication(BaseModel):
    """Fields that single and batched events share. Data is a string, as in the stream."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: Annotated[str, Field(min_length=1, max_length=200)]
    data: str
    socket_id: Annotated[str, Field(pattern=r"^\d+\.\d+$")] | None = None


class _Event(_Publication):
    channels: Annotated[list[_ChannelName], Field(min_length=1, max_length=_MAX_CHANNELS)]

    @model_validator(mode="before")
    @classmethod
    def _convert_channel(cls, given: Any) -> Any:
        """Convert a single ``channel`` to a list."""
        if not isinstance(given, dict) or "channel" not in given or "channels" in given:
            return given
        return {name: value for name, value in given.items() if name != "channel"} | {"channels": [given["channel"]]}


class _EventOfBatch(_Publication):
    channel: _ChannelName


class _Batch(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    batch: Annotated[list[_EventOfBatch], Field(max_length=_MAX_EVENTS)]


def _parameters(request: Request) -> dict[str, str]:
    pairs = parse_qsl(request.scope["query_string"].decode("latin-1"), keep_blank_values=True)
    given = {name.lower(): value for name, value in pairs}
    if len(given) != len(pairs):
        raise Refusal(400, "A parameter of the query was sent twice")
    return given


async def _authenticate(request: Request, app_id: str, hub: TheHub) -> None:
    """Verify the signature, which is computed over the query before escaping."""
    settings, given, body = hub.settings, _parameters(request), await request.body()
    if app_id != settings.pusher_app_id:
        raise Refusal(404, f"Unknown app id {app_id}")
    if given.get("auth_key") != settings.pusher_key:
        raise Refusal(401, "Unknown auth_key")
    if given.get("auth_version") != "1.0":
        raise Refusal(401, "auth_version must be 1.0")
    signature = given.pop("auth_signature", "")
    query = "&".join(f"{name}={value}" for name, value in sorted(given.items()))
    signed = f"{request.method}\n{request.scope['path']}\n{query}"
    expected = hmac.digest(settings.pusher_secret.encode(), signed.encode(), "sha256").hex()
    if not hmac.compare_digest(expected.encode(), signature.encode()):
        raise Refusal(401, "auth_signature is not the HMAC-SHA256 of method, path and sorted query")
    stamp, now = given.get("auth_timestamp", ""), settings.clock()
    if not stamp.isdecimal() or abs(now - int(stamp)) > _TOLERANCE:
        raise Refusal(401, f"auth_timestamp is not within {_TOLERANCE} s of the server's time, {now:.0f}")
    md5 = hashlib.md5(body, usedforsecurity=False).hexdigest()
    if given.get("body_md5", "" if body else md5) != md5:
        raise Refusal(401, "body_md5 is not that of the body")


router = APIRouter(prefix="/apps/{app_id}", dependencies=[Depends(_authenticate)])


def _read(kind: type[_Body], body: bytes) -> _Body:
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise Refusal(400, f"{place}: {first['msg']}" if place else first["msg"]) from None


def _check_size(event: _Publication) -> None:
    if len(event.data.encode()) > _MAX_DATA_BYTES:
        raise Refusal(413, f"The data of event {event.name} is larger than {_MAX_DATA_BYTES} bytes")


def _wants_count(parameters: dict[str, str]) -> bool:
    """Tell whether ``subscription_count`` is requested. Users are counted in presence channels only: there are none."""
    requested = {name for name in parameters.get("info", "").split(",") if name}
    if not requested <= {"subscription_count"}:
        raise Refusal(400, f"info may be subscription_count here, not {', '.join(sorted(requested))}")
    return bool(requested)


@router.post("/events")
async def trigger(request: Request, hub: TheHub) -> dict[str, Any]:
    """Publish one event, to ``channels`` (up to 100) or to one ``channel``."""
    event = _read(_Event, await request.body())
    _check_size(event)
    for channel in event.channels:
        hub.publish(channel, event.name, event.data, exclude=event.socket_id)
    return {}


@router.post("/batch_events")
async def trigger_batch(request: Request, hub: TheHub) -> dict[str, Any]:
    """Publish up to 10 events: all or none."""
    events = _read(_Batch, await request.body()).batch
    for event in events:
        _check_size(event)
    for event in events:
        hub.publish(event.channel, event.name, event.data, exclude=event.socket_id)
    return {}


@router.get("/channels")
async def channels(request: Request, hub: TheHub) -> dict[str, Any]:
    """List the channels that have subscribers."""
    parameters = _parameters(request)
    counted = _wants_count(parameters)
    prefix = parameters.get("filter_by_prefix", "")
    found = {name: number for name, number in hub.subscribers().items() if name.startswith(prefix)}
    return {"channels": {name: {"subscription_count": number} if counted else {} for name, number in found.items()}}


@router.get("/channels/{channel}")
async def channel(request: Request, channel: str, hub: TheHub) -> dict[str, Any]:
    """Describe one channel."""
    if not CHANNEL.fullmatch(channel):
        raise Refusal(400, "Invalid channel name")
    counted = _wants_count(_parameters(request))
    number = hub.subscribers().get(channel, 0)
    return {"occupied": number > 0} | ({"subscription_count": number} if counted else {})
