"""The pages of applicants: those there are, and the form for a new one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Annotated

from airflow.api_fastapi.auth.managers.models.base_user import BaseUser
from airflow.api_fastapi.core_api.security import GetUserDep
from airflow.sdk.exceptions import AirflowException
from fastapi import APIRouter, Depends, HTTPException, Request
from fastapi.responses import HTMLResponse, Response

from airflow_provider_quoine.applications.application import Application, is_reference, new_reference
from airflow_provider_quoine.applications.checks import check_onboarding, check_size
from airflow_provider_quoine.applications.configuration import open_store
from airflow_provider_quoine.applications.store import ApplicationStore, Kept, QuoineApplicationsError
from airflow_provider_quoine.desk.applicants import (
    MEANING,
    NotStartedError,
    TakingDag,
    applicants_of,
    start_run,
    taking_dags,
)
from airflow_provider_quoine.exchange.countries import COUNTRIES
from airflow_provider_quoine.exchange.errors import QuoineError, QuoineFormError, QuoineInputError
from airflow_provider_quoine.exchange.models import DOCUMENT_EXTENSIONS, DOCUMENT_FIELDS, REQUIRED_FIELDS, Document
from airflow_provider_quoine.hooks.quoine import QuoineHook
from airflow_provider_quoine.plugins.access import ALL_DAGS, ApplicantsReader, may_start
from airflow_provider_quoine.plugins.pages import page, see
from airflow_provider_quoine.plugins.protection import from_our_form, from_our_site, name_in, one_time_token
from airflow_provider_quoine.plugins.uploads import (
    LARGEST_FILE_MB,
    LONGEST_NAME,
    SentForm,
    Upload,
    one_of_few,
    read_form,
)

router = APIRouter()

NEW = "/applicants/new"
SHOWN = 100
"""Applicants on the page."""
NOT_THERE = "There is no such applicant, or it was more than a year ago."
NOT_STARTED = (
    "The application %s is stored, but Airflow's database did not take its run, so nothing sends it yet. Do not fill "
    "the form in again: open the page Applicants, and start the run there, on the page of this applicant."
)
SENT_BEFORE = (
    "This form was sent before, and made the applicant %s. What you have sent now was not stored: it differs, or the "
    "data of that applicant were removed meanwhile. For another person, choose the three files again and send this "
    "form: it makes a new applicant."
)


@dataclass(frozen=True, kw_only=True)
class Field:
    """A field of the form, as a person sees it."""

    name: str
    label: str
    help: str = ""
    kind: str = "text"

    @property
    def is_required(self) -> bool:
        """Whether it has to be filled in."""
        return self.name in REQUIRED_FIELDS


PERSON = (
    Field(name="first_name", label="First name", help="As in the id document."),
    Field(name="last_name", label="Last name", help="As in the id document."),
    Field(name="email", label="E-mail", help="The exchange takes each address once.", kind="email"),
    Field(name="phone", label="Phone", help="With or without country code, such as +819017901357.", kind="tel"),
    Field(name="country", label="Country", kind="country"),
)
MORE = (
    Field(name="first_furi_name", label="First name in furigana", help="For a Japanese name."),
    Field(name="last_furi_name", label="Last name in furigana", help="For a Japanese name."),
    Field(name="address", label="Address", help="Street and number."),
    Field(name="city", label="City"),
    Field(name="postcode", label="Postcode"),
)
DOCUMENTS = (
    Field(name="id_document", label="Id document", help="Such as a passport.", kind="file"),
    Field(name="proof_address", label="Proof of address", help="Such as a bill for electricity.", kind="file"),
    Field(name="bank_statement", label="Bank statement", kind="file"),
)
LABELS = {field.name: field.label for field in (*PERSON, *MORE, *DOCUMENTS)}
FORM_FIELDS = tuple(field.name for field in (*PERSON, *MORE))
DAG = "dag_id"


def _may_add(user: BaseUser) -> bool:
    """Whether a person may start a run of a DAG that takes applications; of all DAGs if none does."""
    dag_ids = [dag.dag_id for dag in taking_dags()]
    return any(may_start(user, dag_id) for dag_id in dag_ids or [ALL_DAGS])


def _dags_for(user: BaseUser) -> list[TakingDag]:
    return [dag for dag in taking_dags() if may_start(user, dag.dag_id)]


def _starter(user: GetUserDep) -> BaseUser:
    if not _may_add(user):
        raise HTTPException(403, "You may not start the DAG that sends new applicants to the exchange.")
    return user


Starter = Annotated[BaseUser, Depends(_starter)]
"""A person who may start the run of an applicant."""


async def _sent(request: Request, user: Starter) -> AsyncIterator[SentForm]:
    # Not a byte is read of somebody who may not send it.
    from_our_site(request)
    texts, files = frozenset({*FORM_FIELDS, DAG, "token"}), frozenset(DOCUMENT_FIELDS)
    with one_of_few(user.get_id()):
        yield await read_form(request, texts=texts, files=files)


@router.get("/applicants")
def show_all(user: ApplicantsReader) -> HTMLResponse:
    """Show the newest applicants."""
    kept = _open_store().kept()
    return page(
        "applicants.html",
        user=user,
        applicants=applicants_of(kept[:SHOWN]),
        left_out=len(kept[SHOWN:]),
        may_add=_may_add(user),
    )


@router.get(NEW)
def show_form(user: Starter) -> HTMLResponse:
    """Show the empty form."""
    return _form(user, reference=new_reference(datetime.now(UTC)))


@router.post(NEW)
def take(user: Starter, sent: Annotated[SentForm, Depends(_sent)]) -> Response:
    """Take a filled-in form: store it encrypted, and start the run that sends it."""
    reference = name_in(sent.texts.get("token", ""), user)
    store = _open_store()
    record, is_new = store.record_of(reference), False
    if record and not _is_what_was_sent(sent, store, reference, record):
        # As after the browser's "Back": another person's data would be lost, and nobody would be told.
        another = new_reference(datetime.now(UTC))
        return _form(user, reference=another, typed=sent.texts, problem=SENT_BEFORE % reference)
    if not record:
        dag = next((dag for dag in _dags_for(user) if dag.dag_id == sent.texts.get(DAG)), None)
        try:
            if dag is None:
                raise QuoineFormError.of({DAG: f"{DAG} must be one of those that take applications"})
            record = {DAG: dag.dag_id, "by": user.get_name()}
            is_new = store.add(reference, _checked(sent, dag), record)
        except QuoineFormError as error:
            return _form(user, reference=reference, typed=sent.texts, faults=error.faults)
        except (QuoineInputError, QuoineApplicationsError) as error:
            return _form(user, reference=reference, typed=sent.texts, problem=str(error))
    try:
        start_run(user.get_name(), record[DAG], reference)
    except NotStartedError:
        raise HTTPException(503, NOT_STARTED % reference) from None
    except QuoineInputError as error:
        if not is_new:
            raise HTTPException(422, str(error)) from None
        store.discard(reference)
        words = f"{error} The application was removed, and nothing was sent."
        return _form(user, reference=reference, typed=sent.texts, problem=words)
    return see(f"/applicants/{reference}")


@router.post("/applicants/{reference}", dependencies=[Depends(from_our_form)])
def start(user: Starter, reference: str) -> Response:
    """Start the run of an application that has none: it was deleted, or the API server was killed before."""
    store = _open_store()
    dag_id = store.record_of(reference).get(DAG, "") if _find(store, reference) else ""
    if not dag_id:
        raise HTTPException(404, NOT_THERE)
    if not may_start(user, dag_id):
        raise HTTPException(403, f"You may not start the DAG {dag_id}.")
    try:
        start_run(user.get_name(), dag_id, reference)
    except NotStartedError:
        raise HTTPException(503, NOT_STARTED % reference) from None
    except QuoineInputError as error:
        raise HTTPException(422, f"{error} The application is still here.") from None
    return see(f"/applicants/{reference}")


@router.get("/applicants/{reference}")
def show_one(user: ApplicantsReader, reference: str) -> HTMLResponse:
    """Show one applicant's way."""
    store = _open_store()
    found = _find(store, reference)
    if found is None:
        raise HTTPException(404, NOT_THERE)
    (applicant,) = applicants_of([found])
    record = store.record_of(reference)
    return page(
        "applicant.html",
        user=user,
        applicant=applicant,
        meaning=MEANING[applicant.reached],
        sent_by=record.get("by") or applicant.started_by,
        may_start=applicant.is_stranded and DAG in record and may_start(user, record[DAG]),
    )


def _is_what_was_sent(sent: SentForm, store: ApplicationStore, reference: str, record: Mapping[str, str]) -> bool:
    dag = next((dag for dag in taking_dags() if dag.dag_id == sent.texts.get(DAG) == record[DAG]), None)
    try:
        return dag is not None and store.read(reference) == _checked(sent, dag)
    except (QuoineInputError, QuoineApplicationsError):
        return False


def _find(store: ApplicationStore, reference: str) -> Kept | None:
    if not is_reference(reference):
        return None
    return next((kept for kept in store.kept() if kept.reference == reference), None)


def _form(
    user: BaseUser,
    *,
    reference: str,
    typed: dict[str, str] | None = None,
    faults: Mapping[str, str] | None = None,
    problem: str = "",
) -> HTMLResponse:
    """
    Write the form.

    :param typed: what the person has typed before.
    :param faults: field → what is wrong with it, with the field's name in it.
    :param problem: what is wrong with something else.
    """
    dags = _dags_for(user)
    unusable = ""
    try:
        open_store().check()
        limit = min([LARGEST_FILE_MB, *(_largest(dag) for dag in dags)])
    except (QuoineInputError, QuoineApplicationsError) as error:
        unusable, limit = str(error), 0
    found = faults or {}
    labels = {**LABELS, DAG: "DAG"}
    # In the order of the page.
    said = {name: f"{label}{found[name].removeprefix(name)}." for name, label in labels.items() if name in found}
    return page(
        "new_applicant.html",
        user=user,
        status=422 if said or problem else 200,
        once=one_time_token(user, reference),
        person=PERSON,
        more=MORE,
        documents=DOCUMENTS,
        countries=COUNTRIES,
        dags=dags,
        typed=typed or {},
        faults=said,
        problem=problem,
        unusable=unusable,
        limit=f"{limit:g}",
        accepted=",".join(f".{each}" for each in sorted(DOCUMENT_EXTENSIONS)),
    )


def _checked(sent: SentForm, dag: TakingDag) -> Application:
    limit = _largest(dag)
    application = check_onboarding(
        {field: sent.texts.get(field, "") for field in FORM_FIELDS},
        {field: partial(_document, sent.files.get(field), limit) for field in DOCUMENT_FIELDS},
        max_megabytes=limit,
    )
    # The names of the files are personal too, and the exchange takes nothing but the type from them.
    documents = {
        field: Document(name=f"{field}.{document.extension}", content=document.content)
        for field, document in application.documents.items()
    }
    return Application(user=application.user, documents=documents)


def _document(upload: Upload | None, max_megabytes: float) -> Document:
    if upload is None or not upload.name:
        raise QuoineInputError("choose a file")
    if len(upload.name) > LONGEST_NAME:
        raise QuoineInputError(f"the file's name is longer than {LONGEST_NAME} characters")
    if upload.size > len(upload.content):
        raise QuoineInputError(
            f"the file {upload.name!r:.120} has {upload.size / 1_000_000:.1f} MB, more than the {LARGEST_FILE_MB} MB "
            "that this page takes"
        )
    check_size(upload.size, name=upload.name, max_megabytes=max_megabytes)
    return Document(name=upload.name, content=bytes(upload.content))


def _largest(dag: TakingDag) -> float:
    """Return the megabytes of a document that a DAG's connection allows; without a limit where only a run knows it."""
    if not dag.conn_id:
        return LARGEST_FILE_MB
    try:
        return QuoineHook(dag.conn_id).settings.extras.max_document_mb
    except (QuoineError, AirflowException) as error:
        raise QuoineInputError(
            f"The connection {dag.conn_id!r} of the DAG {dag.dag_id} cannot be used: {error}"
        ) from None


def _open_store() -> ApplicationStore:
    try:
        return open_store()
    except QuoineInputError as error:
        raise HTTPException(503, str(error)) from None
