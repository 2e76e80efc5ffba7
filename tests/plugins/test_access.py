"""Who may use which route of the pages: each route has a line here, and is asked for by real users."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
from airflow.api_fastapi.core_api.security import get_user
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient

from airflow_provider_quoine.api_server import PREFIX, QUESTION, WIPE
from airflow_provider_quoine.plugins.app import make_app
from airflow_provider_quoine.plugins.protection import HEADERS, MOST_BYTES, form_token
from tests.plugins.browser import PEOPLE, Person
from tests.support.one_task import api

pytestmark = pytest.mark.usefixtures("airflow_database")

ALL = tuple(PEOPLE)
SETTLERS = ("admin", "op")
#: What only a task of this Airflow may ask for.
TASKS = (WIPE, QUESTION)
DECISIONS = ("hold", "release", "exists", "absent", "stop", "resume")
#: Per route: who gets something else than "log in" and "you may not". Nobody's word counts where a task's token does.
ROUTES: dict[tuple[str, str], tuple[str, ...]] = {
    ("GET", "/"): ALL,
    ("GET", "/payments"): ALL,
    ("GET", "/payments/payment"): ALL,
    ("POST", "/payments/filter"): ALL,
    ("GET", "/payments/unbegun"): SETTLERS,
    ("POST", "/payments/unbegun"): SETTLERS,
    **{("POST", f"/payments/{decision}"): SETTLERS for decision in DECISIONS},
    ("GET", "/applicants"): ALL,
    ("GET", "/applicants/new"): ("admin", "op", "user"),
    ("POST", "/applicants/new"): ("admin", "op", "user"),
    ("GET", "/applicants/{reference}"): ALL,
    ("POST", "/applicants/{reference}"): ("admin", "op", "user"),
    ("GET", "/book/{dag_id}/{run_id}/{task_id}/{map_index}"): ALL,
    ("GET", "/book/{dag_id}/{run_id}/{task_id}/{map_index}/manifest"): ALL,
    **{("POST", path): () for path in TASKS},
}


#: Routes that take a form from a page; the one with files has tests of its own, in test_applicants.py.
FORMS = [(method, path) for method, path in ROUTES if method == "POST" and path not in (*TASKS, "/applicants/new")]


def routes() -> Iterator[tuple[str, str]]:
    """The routes of the app, but for the files of style and script, which are the same for everybody."""
    for route in make_app().routes:
        if isinstance(route, APIRoute):
            for method in route.methods:
                yield method, route.path


def test_every_route_is_in_the_table() -> None:
    assert {*routes()} == {*ROUTES}


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_each_lets_in_whom_the_table_says(method: str, path: str) -> None:
    allowed = ROUTES[method, path]
    names = ("exchange", "kind", "reference", "dag_id", "run_id", "task_id", "map_index")
    where = path.format(**dict.fromkeys(names, "nothing"))
    forms = {name: {"data": {"token": Person(name).token}} if (method, path) in FORMS else {} for name in ALL}
    seen = {name: Person(name).request(method, where, **forms[name]).status_code for name in ALL}
    assert {name for name, status in seen.items() if status not in (401, 403)} == {*allowed} | (
        {*ALL} if path in TASKS else set()
    )
    assert Person(None).request(method, where).status_code == (422 if path in TASKS else 401)


def test_who_may_see_some_dags_sees_no_payments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow's FAB auth manager has rights to single DAGs, and a right to runs is one to the runs of those DAGs."""

    def may(_self: object, *, details: Any = None, **_asked: Any) -> bool:
        # As it answers: where no DAG is named, who may see one may see a list of those.
        return details is None or details.id is None or details.id == "seen"

    monkeypatch.setattr(SimpleAuthManager, "is_authorized_dag", may)
    for path in ("/payments", "/payments/payment?reference=x", "/applicants", "/applicants/x"):
        answer = Person("admin").get(path)
        assert (answer.status_code, "may not see the runs of all DAGs" in answer.text) == (403, True)
    stop = {"token": Person("admin").token, "why": "seen"}
    assert Person("admin").request("POST", "/payments/stop", data=stop).status_code == 403
    assert Person("admin").get("/book/seen/run/task/-1").status_code == 404
    assert Person("admin").get("/book/another/run/task/-1").status_code == 403


def test_who_has_not_logged_in_decides_nothing() -> None:
    """Airflow's FAB auth manager gives such people a role, if it is told to, and a user without an id."""

    class Nobody(SimpleAuthManagerUser):
        def get_id(self) -> Any:
            return None

    nobody = Nobody(username="Anonymous", role="ADMIN")
    app = make_app()
    app.dependency_overrides[get_user] = lambda: nobody
    api()
    client = TestClient(app)
    seen = client.get("/payments")
    assert (seen.status_code, "Stop all payments" in seen.text) == (200, False)
    stop = {"token": form_token(nobody), "why": "seen"}
    answer = client.post("/payments/stop", data=stop)
    assert (answer.status_code, "You have not logged in" in answer.text) == (403, True)


@pytest.mark.parametrize(("method", "path"), FORMS)
def test_a_form_that_the_person_did_not_open_is_refused(method: str, path: str) -> None:
    person, other = Person("admin"), Person("op")
    from_elsewhere = {"Sec-Fetch-Site": "cross-site"}
    for token, headers in (("", {}), ("x", {}), (other.token, {}), (person.token, from_elsewhere)):
        answer = person.request(method, path, data={"token": token}, headers=headers)
        assert (answer.status_code, "form" in answer.json()["detail"]) == (403, True)


def test_every_answer_has_the_headers_that_protect_it() -> None:
    for person, path in ((Person("admin"), "/"), (Person(None), "/"), (Person("admin"), "/nothing")):
        headers = person.get(path).headers
        assert {name: headers.get(name) for name in HEADERS} == HEADERS
        assert headers["cache-control"] == "no-store"


def test_style_and_script_are_for_everybody() -> None:
    for name in ("desk.css", "desk.js"):
        assert Person(None).get(f"/static/{name}").status_code == 200
    assert Person(None).get("/static/../app.py").status_code == 404


def test_a_body_that_is_too_large_is_refused_unread() -> None:
    answer = Person("admin").request("POST", WIPE, content=b"x" * (MOST_BYTES + 1))
    assert (answer.status_code, "larger than 64 KiB" in answer.text) == (413, True)


def test_a_browser_is_answered_with_a_page() -> None:
    answer = Person(None).get("/", headers={"Accept": "text/html"})
    assert answer.status_code == 401
    assert "Log in to Airflow" in answer.text
    assert answer.headers["content-type"].startswith("text/html")


def test_a_login_that_counts_no_more_is_answered_with_a_link_to_log_in() -> None:
    """As that of a user who was deleted, or who has logged out elsewhere: Airflow calls it an invalid token."""
    answer = api().get(f"{PREFIX}/payments", headers={"Authorization": "Bearer x", "Accept": "text/html"})
    assert (answer.status_code, "Log in to Airflow" in answer.text) == (401, True)
    assert "JWT" not in answer.text


def test_a_page_that_fails_says_what_to_do_and_no_more() -> None:
    app = make_app()

    @app.get("/fails")
    def fails() -> None:
        raise RuntimeError("the secret")

    answer = TestClient(app, raise_server_exceptions=False).get("/fails", headers={"Accept": "text/html"})
    assert answer.status_code == 500
    assert "before you decide once more" in answer.text
    assert "the secret" not in answer.text
    assert {name: answer.headers.get(name) for name in HEADERS} == HEADERS
    with pytest.raises(RuntimeError, match="the secret"):
        TestClient(app).get("/fails")


def test_the_base_of_all_links_is_where_airflow_is_mounted() -> None:
    assert Person("viewer").get("/", follow_redirects=False).headers["location"] == f"{PREFIX}/payments"
