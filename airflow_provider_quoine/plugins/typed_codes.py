"""What a task asks of the API server: it is the only one that reaches Airflow's tables."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, HTTPException

from airflow_provider_quoine.api_server import WIPE, is_from_this_airflow
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
