"""The controls at ``/_sandbox/`` and the page in the browser."""

from __future__ import annotations

import json
from dataclasses import asdict
from importlib.resources import files
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import HTMLResponse

from airflow_provider_quoine.sandbox.faults import Fault
from airflow_provider_quoine.sandbox.refusals import Refusal
from airflow_provider_quoine.sandbox.rest.endpoints import TheExchange
from airflow_provider_quoine.sandbox.rest.exchange import OUTCOMES, ResourceKind, iso
from airflow_provider_quoine.sandbox.stream.hub import TheHub

router = APIRouter()


class Pace(BaseModel):
    """Seconds per step of a user or a withdrawal; None advances by hand only."""

    seconds: Annotated[float, Field(ge=0)] | None


class MarketRate(BaseModel):
    """Events per second on every market channel that has a subscriber."""

    per_second: Annotated[float, Field(ge=0, le=1000)]


class ReplaySpeed(BaseModel):
    """2 replays twice as fast as received; None takes the sandbox's setting."""

    speed: Annotated[float, Field(gt=0)] | None = None


class Event(BaseModel):
    """An event; data that is not a str is sent as JSON."""

    channel: str
    event: str
    data: Any


class NewState(BaseModel):
    """A state, documented or not."""

    state: Annotated[str, Field(min_length=1)]


class NextOutcome(BaseModel):
    """The outcome of the next ones."""

    subject: Literal["user", "withdrawal", "auth_code"]
    outcome: str
    times: Annotated[int, Field(ge=1)] = 1


@router.get("/", response_class=HTMLResponse)
async def page() -> HTMLResponse:
    """Return the page."""
    text = files(__package__).joinpath("page.html").read_text(encoding="utf-8")
    return HTMLResponse(text, headers={"Cache-Control": "no-store"})


@router.get("/_sandbox/state")
async def state(
    exchange: TheExchange, hub: TheHub, requests: Annotated[int | None, Query(ge=1)] = None
) -> dict[str, Any]:
    """Return the whole state; with ``?requests=N`` only the latest N requests of it."""
    return exchange.state(last_requests=requests) | {"stream": hub.stats()}


@router.get("/_sandbox/auth_codes")
async def auth_codes(exchange: TheExchange) -> list[dict[str, Any]]:
    """Return all authentication codes, oldest first."""
    return [asdict(code) | {"sent_at": iso(code.sent_at)} for code in exchange.auth_codes.sent]


@router.post("/_sandbox/{kind}/{number}/state")
async def set_state(exchange: TheExchange, kind: ResourceKind, number: str, new: NewState) -> dict[str, Any]:
    """Set the state of a user or a withdrawal."""
    exchange.set_state(kind, number, new.state)
    return {"state": new.state}


@router.post("/_sandbox/{kind}/{number}/advance")
async def advance(exchange: TheExchange, kind: ResourceKind, number: str) -> dict[str, Any]:
    """Take the next step of a user or a withdrawal."""
    return {"state": exchange.advance(kind, number)}


@router.post("/_sandbox/outcomes")
async def set_next_outcome(exchange: TheExchange, new: NextOutcome) -> dict[str, Any]:
    """Set the outcome of the next users, withdrawals or authentication codes."""
    if new.outcome not in OUTCOMES[new.subject]:
        known = ", ".join(OUTCOMES[new.subject])
        raise Refusal(422, {"message": f"outcome of {new.subject} must be one of {known}"})
    for _ in range(new.times):
        exchange.set_next_outcome(new.subject, new.outcome)
    return {"set": new.times}


@router.post("/_sandbox/pace")
async def set_pace(exchange: TheExchange, new: Pace) -> dict[str, Any]:
    """Change the pace of users and withdrawals."""
    exchange.set_pace(new.seconds)
    return {"pace": exchange.pace}


@router.post("/_sandbox/market_rate")
async def set_market_rate(hub: TheHub, new: MarketRate) -> dict[str, Any]:
    """Change the event rate of the market."""
    hub.set_market_rate(new.per_second)
    return {"market_rate": new.per_second}


@router.post("/_sandbox/replay")
async def start_replay(hub: TheHub, new: ReplaySpeed) -> dict[str, Any]:
    """Start the replay now, from the beginning."""
    return {"events": hub.start_replay(new.speed)}


@router.post("/_sandbox/publish")
async def publish(hub: TheHub, new: Event) -> dict[str, Any]:
    """Publish one event."""
    data = new.data if isinstance(new.data, str) else json.dumps(new.data)
    return {"subscribers": hub.publish(new.channel, new.event, data)}


@router.post("/_sandbox/faults")
async def inject_fault(request: Request, exchange: TheExchange, hub: TheHub, fault: Fault) -> dict[str, Any]:
    """Inject a fault. One that is applied now returns the number of connections that it hit."""
    if fault.when != "now":
        exchange.faults.pending.append(fault)
        return {"pending": fault.times}
    if fault.endpoint == "stream":
        return {"hit": hub.apply_fault(fault)}
    return {"hit": request.app.state.close_port(fault.seconds)}


@router.delete("/_sandbox/faults")
async def clear_faults(exchange: TheExchange) -> dict[str, Any]:
    """Remove all pending faults."""
    return {"removed": exchange.faults.clear()}


@router.post("/_sandbox/reset")
async def reset(exchange: TheExchange, hub: TheHub) -> dict[str, Any]:
    """Return to the state after the start. Open stream connections stay."""
    exchange.reset()
    hub.reset()
    return {"reset": True}
