"""People who use the pages, each with a role of Airflow's simple auth manager, without a browser."""

from __future__ import annotations

import html
import re
from typing import Any

from airflow_provider_quoine.api_server import PREFIX
from tests.support.one_task import api, token_of

PEOPLE = {"admin": "ADMIN", "op": "OP", "user": "USER", "viewer": "VIEWER"}
"""Names of people, and their roles."""


class Person:
    """
    Somebody who is logged in as a browser is: by a cookie.

    :param name: of a person; None for somebody who is not logged in.
    """

    def __init__(self, name: str | None) -> None:
        self.name = name
        self._headers = {"Cookie": f"_token={token_of(name, PEOPLE[name])}"} if name else {"Cookie": "none=1"}

    def request(self, method: str, path: str, **options: Any) -> Any:
        """Ask for a path of the pages; redirects are not followed unless told."""
        headers = {"Authorization": "", **self._headers, **options.pop("headers", {})}
        return api().request(method, f"{PREFIX}{path}", headers=headers, **{"follow_redirects": False, **options})

    @property
    def token(self) -> str:
        """The token that the forms of every page have for this person."""
        from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser

        from airflow_provider_quoine.plugins.protection import form_token

        name = self.name or ""
        return form_token(SimpleAuthManagerUser(username=name, role=PEOPLE.get(name)))

    def get(self, path: str, **options: Any) -> Any:
        """Open a page."""
        return self.request("GET", path, **options)

    def send(self, page: str, path: str, **fields: str) -> Any:
        """Open a page, and send a form from it."""
        return self.request("POST", path, data={"token": token_in(self.get(page).text), **fields})


def token_in(page: str) -> str:
    """Return the token of a page's forms."""
    found = re.search(r'name="token" value="([^"]+)"', page)
    assert found, page
    return html.unescape(found[1])
