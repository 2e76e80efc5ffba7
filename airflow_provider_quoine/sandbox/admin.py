"""The controls at ``/_sandbox/``: what the sandbox holds, how lives go on, what goes wrong."""

from __future__ import annotations

import json
from dataclasses import asdict
from importlib.resources import files
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import HTMLResponse

from airflow_provider_quoine.sandbox.exchange import OUTCOMES, iso
from airflow_provider_quoine.sandbox.faults import Fault
from airflow_provider_quoine.sandbox.lives import Life
from airflow_provider_quoine.sandbox.refusals import Refusal
from airflow_provider_quoine.sandbox.rest import TheExchange, exchange_of
from airflow_provider_quoine.sandbox.stream import stream_of

router = APIRouter()


class Pace(BaseModel):
    """Seconds per step of a life; None moves lives by hand only."""

    seconds: Annotated[float, Field(ge=0)] | None


class MarketRate(BaseModel):
    """Events per second on every market channel that has a subscriber."""

    per_second: Annotated[float, Field(ge=0, le=1000)]


class ReplaySpeed(BaseModel):
    """How many times as fast as it was received; None leaves it as it is set."""

    speed: Annotated[float, Field(gt=0)] | None = None


class Event(BaseModel):
    """One exact event; data that is no str goes out as JSON."""

    channel: str
    event: str
    data: Any


class NewState(BaseModel):
    """A state, on record or not."""

    state: Annotated[str, Field(min_length=1)]


class Outcome(BaseModel):
    """How the next ones shall end."""

    of: Literal["user", "withdrawal", "auth_code"]
    outcome: str
    times: Annotated[int, Field(ge=1)] = 1


@router.get("/", response_class=HTMLResponse)
async def page() -> HTMLResponse:
    """Show the page for the person at the demo."""
    text = files(__package__).joinpath("page.html").read_text(encoding="utf-8")
    return HTMLResponse(text, headers={"Cache-Control": "no-store"})


@router.get("/_sandbox/state")
async def state(
    request: Request, exchange: TheExchange, requests: Annotated[int | None, Query(ge=1)] = None
) -> dict[str, Any]:
    """Tell all that the sandbox holds; ``?requests=N`` tells of the latest N requests only."""
    return exchange.state(last_requests=requests) | {"stream": stream_of(request).figures()}


@router.get("/_sandbox/outbox")
async def outbox(exchange: TheExchange) -> list[dict[str, Any]]:
    """Show the person's mailbox, codes and all."""
    return [asdict(message) | {"sent_at": iso(message.sent_at)} for message in exchange.outbox.messages]


def _life(request: Request, kind: str, number: str) -> Life:
    exchange = exchange_of(request)
    exchange.settle()
    return (exchange.users if kind == "users" else exchange.withdrawals).get(number).life


@router.post("/_sandbox/{kind}/{number}/state")
async def put_state(
    request: Request, kind: Literal["users", "withdrawals"], number: str, order: NewState
) -> dict[str, Any]:
    """Put a user or a withdrawal into a state."""
    _life(request, kind, number).put(order.state, now=exchange_of(request).now())
    return {"state": order.state}


@router.post("/_sandbox/{kind}/{number}/advance")
async def advance(request: Request, kind: Literal["users", "withdrawals"], number: str) -> dict[str, Any]:
    """Take a user's or a withdrawal's next step."""
    life = _life(request, kind, number)
    life.advance(now=exchange_of(request).now())
    return {"state": life.state}


@router.post("/_sandbox/outcomes")
async def order_outcome(exchange: TheExchange, order: Outcome) -> dict[str, Any]:
    """Order how the next users, withdrawals or requests for a code end."""
    if order.outcome not in OUTCOMES[order.of]:
        known = ", ".join(OUTCOMES[order.of])
        raise Refusal(422, {"message": f"outcome of {order.of} must be one of {known}"})
    for _ in range(order.times):
        exchange.order_outcome(order.of, order.outcome)
    return {"ordered": order.times}


@router.post("/_sandbox/pace")
async def set_pace(exchange: TheExchange, order: Pace) -> dict[str, Any]:
    """Change the pace of all lives."""
    exchange.set_pace(order.seconds)
    return {"pace": exchange.pace}


@router.post("/_sandbox/market_rate")
async def set_market_rate(request: Request, order: MarketRate) -> dict[str, Any]:
    """Change how fast the market is."""
    stream_of(request).set_market_rate(order.per_second)
    return {"market_rate": order.per_second}


@router.post("/_sandbox/replay")
async def replay(request: Request, order: ReplaySpeed) -> dict[str, Any]:
    """Replay the raw captures that the sandbox was started with from their beginning."""
    return {"events": stream_of(request).replay(order.speed)}


@router.post("/_sandbox/publish")
async def publish(request: Request, order: Event) -> dict[str, Any]:
    """Publish one exact event to whoever is subscribed."""
    data = order.data if isinstance(order.data, str) else json.dumps(order.data)
    return {"subscribers": stream_of(request).publish(order.channel, order.event, data)}


@router.post("/_sandbox/faults")
async def order_fault(request: Request, exchange: TheExchange, fault: Fault) -> dict[str, Any]:
    """Order a fault; one that strikes now tells how many connections it hit."""
    if fault.when != "now":
        exchange.faults.waiting.append(fault)
        return {"ordered": fault.times}
    if fault.endpoint == "stream":
        return {"hit": stream_of(request).strike(fault)}
    return {"hit": request.app.state.refuse(fault.seconds)}


@router.delete("/_sandbox/faults")
async def clear_faults(exchange: TheExchange) -> dict[str, Any]:
    """Take back all faults that have not struck yet."""
    taken_back = len(exchange.faults.waiting)
    exchange.faults.waiting.clear()
    return {"taken_back": taken_back}


@router.post("/_sandbox/reset")
async def reset(request: Request, exchange: TheExchange) -> dict[str, Any]:
    """Forget everything; open stream connections stay."""
    exchange.reset()
    stream_of(request).reset()
    return {"reset": True}
