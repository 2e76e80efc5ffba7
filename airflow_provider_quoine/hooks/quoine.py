"""QuoineHook: makes a client of the exchange, and the endpoint of its streams, from an Airflow connection."""

from __future__ import annotations

import asyncio
import math
import secrets
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseHook, Variable
from airflow.sdk.log import mask_secret

from airflow_provider_quoine.exchange.budget.rules import Priority
from airflow_provider_quoine.exchange.errors import QuoineError, QuoineInputError
from airflow_provider_quoine.exchange.models import UserCredentials
from airflow_provider_quoine.hooks.budget import RequestMetrics, budget_of
from airflow_provider_quoine.hooks.connection import ConnectionSettings
from airflow_provider_quoine.hooks.diagnosis import BRACKETS, NOBODY, diagnose

if TYPE_CHECKING:
    from airflow_provider_quoine.exchange.rest.client import QuoineClient
    from airflow_provider_quoine.exchange.stream.pusher import PusherEndpoint


#: How often a read is sent at most. A wait asks again anyway, so its reads are sent once.
READ_ATTEMPTS = {Priority.URGENT: 4, Priority.NORMAL: 4, Priority.POLLING: 1}
#: Seconds that the test of a connection waits for a slot of the request budget.
FORM_PATIENCE = 20.0


class QuoineHook(BaseHook):
    """
    Talk to the exchange with the credentials of an Airflow connection of type ``quoine``.

    :param quoine_conn_id: the connection: base URL, API id (login), API secret (password) and the extra
        fields of :class:`~airflow_provider_quoine.hooks.connection.ConnectionExtras`.
    :param credentials_variable: name of an Airflow Variable that holds ``{"api_id": ..., "api_secret": ...}``,
        as the onboarding sensor writes it. Requests are then signed by that key instead of the connection's,
        which is how a user's own key signs withdrawals (decisions, Who signs).
    """

    conn_name_attr = "quoine_conn_id"
    default_conn_name = "quoine_default"
    conn_type = "quoine"
    hook_name = "Quoine"

    def __init__(self, quoine_conn_id: str = default_conn_name, *, credentials_variable: str | None = None) -> None:
        super().__init__()
        self.quoine_conn_id = quoine_conn_id
        self.credentials_variable = credentials_variable

    @cached_property
    def settings(self) -> ConnectionSettings:
        """
        The checked connection. It is looked up on first use, never while a DAG is read, and kept; so is the key. A new
        hook reads both anew.

        :raises QuoineInputError: naming the field that is wrong.
        """
        return ConnectionSettings.from_connection(self.get_connection(self.quoine_conn_id))

    @property
    def account(self) -> str:
        """
        The id of the key that signs, by which payments are counted.

        :raises QuoineInputError: if the connection or the credentials' Variable is incomplete.
        """
        return self._credentials.api_id

    def get_conn(
        self, *, priority: Priority = Priority.NORMAL, read_attempts: int | None = None, patience: float = math.inf
    ) -> QuoineClient:
        """
        Return a new client for this connection; the caller closes it (it is a context manager).

        :param priority: of its requests in the request budget. A client that polls sends a read once; other clients
            retry transient failures.
        :param read_attempts: how often a read is sent at most; by default what the priority says.
        :param patience: seconds that a request waits for a slot of the request budget at most.
        :raises QuoineInputError: if the connection or the credentials' Variable is incomplete.
        """
        attempts = read_attempts or READ_ATTEMPTS[priority]
        return self._client(self._credentials, priority=priority, read_attempts=attempts, patience=patience)

    async def aget_stream_endpoint(self) -> PusherEndpoint:
        """
        Return the endpoint of the market streams, without blocking the event loop.

        :raises QuoineInputError: if the connection names no Pusher key.
        """
        return await asyncio.to_thread(lambda: self.settings.pusher_endpoint)

    def test_connection(self) -> tuple[bool, str]:
        """
        Test the connection: key, withdrawal policy and market stream.

        :return: whether all that is filled in is good, and sentences for the person who filled in the form.
        """
        made_up = UserCredentials(api_id=NOBODY, api_secret=secrets.token_hex(32))
        how: dict[str, Any] = {"priority": Priority.URGENT, "read_attempts": 1, "patience": FORM_PATIENCE}
        try:
            with self._client(self._credentials, **how) as client, self._client(made_up, **how) as stranger:
                return diagnose(self.settings, client=client, stranger=stranger)
        except QuoineError as error:
            # Airflow 3.3 tests a copy of the connection, whose name nobody has given.
            words = str(error).translate(BRACKETS)
            name = f"onnection {self.quoine_conn_id!r}"
            return False, words.replace(f"C{name}", "This connection").replace(f"c{name}", "this connection")

    def _client(self, key: UserCredentials, *, priority: Priority, read_attempts: int, patience: float) -> QuoineClient:
        from airflow_provider_quoine.exchange.rest.auth import ApiAuth, JwtAuth
        from airflow_provider_quoine.exchange.rest.client import QuoineClient

        settings, extras = self.settings, self.settings.extras
        if extras.ca_path and not Path(extras.ca_path).exists():
            raise QuoineInputError(
                f"{extras.label_of('ca_path')!r} is {extras.ca_path!r}, and there is no such file on this host. "
                "Nothing was sent. Give the path of an existing file, or leave the field empty."
            )
        schemes = {"apiauth": ApiAuth, "jwt": JwtAuth}
        return QuoineClient(
            base_url=settings.base_url,
            auth=schemes[extras.signing_scheme](key.api_id, key.api_secret),
            connect_timeout=extras.connect_timeout,
            read_timeout=extras.read_timeout,
            verify=extras.ca_path or True,
            budget=budget_of(settings, api_id=key.api_id),
            observer=RequestMetrics(conn_id=self.quoine_conn_id),
            priority=priority,
            read_attempts=read_attempts,
            patience=patience,
        )

    @cached_property
    def _credentials(self) -> UserCredentials:
        if self.credentials_variable:
            key = UserCredentials.from_json(read_secret_variable(self.credentials_variable))
        else:
            key = UserCredentials(api_id=self.settings.api_id, api_secret=self.settings.api_secret)
        if not key.api_id or not key.api_secret:
            raise QuoineInputError(
                f"Connection {self.quoine_conn_id!r} has no API id or no API secret. Fill in both, or name the "
                "Variable that holds a user's key in credentials_variable."
            )
        mask_secret(key.api_secret)
        return key


def read_secret_variable(name: str) -> str:
    """
    Return a secret from an Airflow Variable or a secrets backend, and mask it in all logs from now on.

    :raises QuoineInputError: if there is no such Variable, or if it is empty.
    """
    value = Variable.get(name, default=None)
    if not value:
        raise QuoineInputError(
            f"There is no Variable {name!r}, or it is empty. Create it in Airflow (Admin, Variables) or in the "
            "secrets backend, or check the name that the task was given."
        )
    mask_secret(value)
    return str(value)


def write_secret_variable(name: str, value: str, *, description: str) -> None:
    """Put a secret into an Airflow Variable, encrypted at rest by Airflow's Fernet key, and mask it in logs."""
    mask_secret(value)
    Variable.set(name, value, description=description)
