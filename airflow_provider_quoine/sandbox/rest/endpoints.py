"""The endpoints of api-reference I, no more lenient than documented there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, NoReturn

from fastapi import APIRouter, Depends
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from airflow_provider_quoine.sandbox.refusals import Refusal, invalid, unauthorized
from airflow_provider_quoine.sandbox.rest.exchange import Exchange
from airflow_provider_quoine.sandbox.rest.users import Document, User

router = APIRouter()


def _exchange_of(request: Request) -> Exchange:
    """Return the exchange that serves this request."""
    exchange: Exchange = request.app.state.exchange
    return exchange


TheExchange = Annotated[Exchange, Depends(_exchange_of)]


async def _api_id(request: Request, exchange: TheExchange) -> str:
    query = request.scope["query_string"]
    target = request.scope["raw_path"] + (b"?" + query if query else b"")
    api_id = exchange.verifier.verify(target=target.decode("ascii"), headers=request.headers, body=await request.body())
    request.state.record.api_id = api_id
    return api_id


async def _vendor(exchange: TheExchange, api_id: Annotated[str, Depends(_api_id)]) -> None:
    exchange.check_vendor(api_id)


async def _user(exchange: TheExchange, api_id: Annotated[str, Depends(_api_id)]) -> User:
    return exchange.user_of(api_id)


TheUser = Annotated[User, Depends(_user)]


def _plain_number(text: str) -> Decimal:
    # An exponent is legal JSON, but the exchange's amounts never have one (facts, Withdrawals).
    if "e" in text.lower():
        raise ValueError(f"{text} has an exponent")
    return Decimal(text)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip()


def _read_json(request: Request, body: bytes) -> Any:
    """Decode a JSON body; numbers keep every digit."""
    if _media_type(request) != "application/json":
        raise Refusal(400, {"message": "Content-Type must be application/json"})
    try:
        return json.loads(body.decode("utf-8"), parse_float=_plain_number, parse_constant=_no_constant)
    except ValueError as error:
        raise Refusal(400, {"message": "The request's body is not JSON"}, reason=f"body: {error}") from None


@router.post("/users/onboarding", dependencies=[Depends(_vendor)])
async def create_onboarding_user(request: Request, exchange: TheExchange) -> Response:
    """Create onboarding user (api-reference 1.1): multipart/form-data with flat names (facts, Onboarding)."""
    if _media_type(request) != "multipart/form-data":
        raise invalid("Content-Type must be multipart/form-data")
    fields: dict[str, str] = {}
    documents: dict[str, Document] = {}
    async with request.form() as form:
        for name, value in form.multi_items():
            if name in fields or name in documents:
                raise invalid(f"{name} was sent twice")
            if isinstance(value, UploadFile):
                documents[name] = Document.of(value.filename or "", await value.read())
            else:
                fields[name] = value
    user = exchange.create_user(fields=fields, documents=documents)
    return JSONResponse({"success": True, "user_id": user.user_id})


@router.post("/users/onboarding_status", dependencies=[Depends(_vendor)])
async def onboarding_status(request: Request, exchange: TheExchange) -> Response:
    """Check onboarding user status (api-reference 1.2); the reference does not say whether JSON or form."""
    parameters: Mapping[str, Any]
    if _media_type(request) in {"application/x-www-form-urlencoded", "multipart/form-data"}:
        parameters = await request.form()
    else:
        parameters = _read_json(request, await request.body())
    if not isinstance(parameters, Mapping):
        raise unauthorized()
    user_id, password = parameters.get("user_id"), parameters.get("password")
    if not isinstance(user_id, str | int) or not isinstance(password, str):
        raise unauthorized()
    exchange.advance_due()
    return JSONResponse(exchange.users.login(user_id, password).status())


@router.get("/users/{user_id}/auth_code")
async def request_auth_code(user_id: str, exchange: TheExchange, user: TheUser) -> Response:
    """Send an authentication code (api-reference 2.1). Although a GET, it is a write (facts, Withdrawals)."""
    return JSONResponse(exchange.send_code(user, user_id))


@router.post("/btc_withdrawals/")
async def create_btc_withdrawal(request: Request, exchange: TheExchange, user: TheUser) -> Response:
    """Create a bitcoin withdrawal (api-reference 2.1)."""
    withdrawal = exchange.create_withdrawal(user, _read_json(request, await request.body()))
    content = withdrawal.as_json(exchange.settings.withdrawal_amounts)
    return Response(content, media_type="application/json")


@router.get("/btc_withdrawals/{withdrawal_id}")
async def get_btc_withdrawal(withdrawal_id: str, exchange: TheExchange, user: TheUser) -> Response:
    """Get a bitcoin withdrawal (api-reference 2.2)."""
    withdrawal = exchange.withdrawal_of(user, withdrawal_id)
    content = withdrawal.as_json(exchange.settings.withdrawal_amounts)
    return Response(content, media_type="application/json")
