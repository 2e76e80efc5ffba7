"""What a task asks of the API server: it is the only one that reaches Airflow's tables."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Header, HTTPException

from airflow_provider_quoine.api_server import QUESTION, WIPE, is_from_this_airflow, words_of_this_airflow
from airflow_provider_quoine.desk.answers import write_question
from airflow_provider_quoine.desk.typed_codes import wipe_typed_codes

router = APIRouter()


@router.post(WIPE)
def wipe(x_quoine_token: Annotated[str, Header(max_length=500)]) -> dict[str, int]:
    """
    Wipe codes that people have typed for tasks which could not take them.

    :param x_quoine_token: shows that a process of this Airflow asks.
    :raises HTTPException: 403 for everybody else.
    """
    if not is_from_this_airflow(x_quoine_token, WIPE):
        raise HTTPException(403, "Only a task of this Airflow may ask for this.")
    return {"wiped": wipe_typed_codes()}


@router.post(QUESTION)
def question(
    x_quoine_token: Annotated[str, Header(max_length=500)],
    sealed: Annotated[str, Body(media_type="text/plain", max_length=50_000)],
) -> dict[str, bool]:
    """
    Change a question that a task asks a person.

    :param x_quoine_token: shows that a process of this Airflow asks.
    :param sealed: what it wants, encrypted with this Airflow's key.
    :raises HTTPException: 403 for everybody else.
    """
    words = words_of_this_airflow(sealed) if is_from_this_airflow(x_quoine_token, QUESTION) else None
    if words is None:
        raise HTTPException(403, "Only a task of this Airflow may ask for this.")
    return {"written": write_question(words)}
