"""Where the desk begins."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import RedirectResponse

from airflow_provider_quoine.plugins.access import AnyUser
from airflow_provider_quoine.plugins.pages import see

router = APIRouter()


@router.get("/")
def home(_user: AnyUser) -> RedirectResponse:
    """Begin with the payments."""
    return see("/payments")
