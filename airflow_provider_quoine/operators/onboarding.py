"""An operator that creates an onboarding user, documents included."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator, Variable

from airflow_provider_quoine.exchange.budget.rules import Priority
from airflow_provider_quoine.exchange.models import DOCUMENT_FIELDS
from airflow_provider_quoine.failures import check_all, stop, without_retry
from airflow_provider_quoine.hooks.quoine import QuoineHook, read_secret_variable, write_secret_variable
from airflow_provider_quoine.operators.documents import read_document
from airflow_provider_quoine.operators.notifying import telling_of_doubt
from airflow_provider_quoine.operators.task_state import name_payment
from airflow_provider_quoine.payments.withdrawals import task_name

if TYPE_CHECKING:
    from airflow.sdk import BaseNotifier, Context

    from airflow_provider_quoine.applications.application import Application
    from airflow_provider_quoine.applications.store import ApplicationStore
    from airflow_provider_quoine.payments.attempt import Attempt
    from airflow_provider_quoine.payments.records import Order, Payment
    from airflow_provider_quoine.payments.transaction import Transaction

# The form's fields as this operator calls them → as the exchange does.
_REQUIRED = {
    "first_name": "first_name",
    "last_name": "last_name",
    "phone": "phone",
    "email_address": "email",
    "country": "country",
}
_OPTIONAL = {name: name for name in ("first_furi_name", "last_furi_name", "address", "city", "postcode")}


class QuoineCreateOnboardingUserOperator(BaseOperator):
    """
    Create an onboarding user at the exchange (api-reference 1.1).

    Everything is checked before anything is sent. The ledger of payments has each e-mail address once, as a keyed
    hash: whatever run, task or DAG has the same address finds the user. If the answer is lost, nothing is sent again
    until a person has looked.

    The form is given by ``application``, as the page *New applicant* stores it, and then nothing personal is in
    Airflow's tables. Or it is given field by field, which everybody who may see the DAG's runs can read.

    :param application: reference of an application. It is removed as soon as the user exists.
    :param first_name: given name.
    :param last_name: family name.
    :param phone: with or without country code.
    :param email_address: e-mail address; the exchange accepts each address once. The name ``email`` is taken:
        Airflow mails a task's failures to that address.
    :param country: ISO 3166 alpha-2 code, such as ``JP``.
    :param id_document: path or ``ObjectStoragePath`` URI of the id document.
    :param proof_address: path or URI of the proof of address.
    :param bank_statement: path or URI of the bank statement.
    :param password_variable: Variable that holds the user's password. A password must not be a parameter of a run,
        because everybody who may see the DAG can read those.
    :param generate_password: make a strong password and store it in that Variable unless it has one.
    :param first_furi_name: given name in furigana.
    :param last_furi_name: family name in furigana.
    :param address: street and number.
    :param city: city.
    :param postcode: postal code.
    :param quoine_conn_id: the vendor's connection.
    :param unknown_outcome_notifiers: Airflow's notifiers, called when nobody knows whether the user was created, by the
        task itself or by its next attempt. Their templates have the failure's lines as ``exception``.
    :return: the exchange's id of the user, as a string.
    """

    template_fields: Sequence[str] = (
        "quoine_conn_id",
        "application",
        "first_name",
        "last_name",
        "phone",
        "email_address",
        "country",
        "id_document",
        "proof_address",
        "bank_statement",
        "password_variable",
        "first_furi_name",
        "last_furi_name",
        "address",
        "city",
        "postcode",
    )
    ui_color = "#dcfce7"

    def __init__(
        self,
        *,
        application: str = "",
        first_name: str = "",
        last_name: str = "",
        phone: str = "",
        email_address: str = "",
        country: str = "",
        id_document: str = "",
        proof_address: str = "",
        bank_statement: str = "",
        password_variable: str,
        generate_password: bool = False,
        first_furi_name: str = "",
        last_furi_name: str = "",
        address: str = "",
        city: str = "",
        postcode: str = "",
        quoine_conn_id: str = "quoine_default",
        unknown_outcome_notifiers: Sequence[BaseNotifier] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.application = application
        self.first_name = first_name
        self.last_name = last_name
        self.phone = phone
        self.email_address = email_address
        self.country = country
        self.id_document = id_document
        self.proof_address = proof_address
        self.bank_statement = bank_statement
        self.password_variable = password_variable
        self.generate_password = generate_password
        self.first_furi_name = first_furi_name
        self.last_furi_name = last_furi_name
        self.address = address
        self.city = city
        self.postcode = postcode
        self.quoine_conn_id = quoine_conn_id
        self.unknown_outcome_notifiers = unknown_outcome_notifiers
        form = [name for name in (*_REQUIRED, *DOCUMENT_FIELDS, *_OPTIONAL) if getattr(self, name)]
        missing = {*_REQUIRED, *DOCUMENT_FIELDS} - {*form}
        if application and form:
            raise ValueError(f"{self.task_id} has an application, and {', '.join(form)} beside it: give one of both.")
        if missing and not application:
            raise ValueError(f"{self.task_id} has no {', '.join(sorted(missing))}: give them, or an application.")

    def execute(self, context: Context) -> str:
        """Check, send once, and return the user's id."""
        from airflow_provider_quoine.applications.configuration import open_store
        from airflow_provider_quoine.exchange.errors import QuoineRefusedError
        from airflow_provider_quoine.payments.attempt import Attempt
        from airflow_provider_quoine.payments.configuration import open_ledger
        from airflow_provider_quoine.payments.refusals import how_to_settle
        from airflow_provider_quoine.payments.schema import Step
        from airflow_provider_quoine.payments.users import user_order, user_reference

        with without_retry(), telling_of_doubt(self.unknown_outcome_notifiers, context):
            ledger, hook = open_ledger(), QuoineHook(self.quoine_conn_id)
            store = open_store() if self.application else None
            reference, application, is_settled = self._applied(store) if store else ("", None, False)
            if not reference:
                reference = user_reference(ledger, application.user.email if application else self.email_address)
            order = user_order(hook, reference)
            attempt = Attempt(ledger=ledger, order=order, task=task_name(context))
            found, checked = ledger.look(order), None
            if found is None or found.step != Step.SENT:
                if store:
                    application = application or store.read(self.application)
                # A form that is wrong leaves nothing in the ledger.
                checked = self._input(application, hook.settings.extras.max_document_mb)
                found = attempt.begin()
            name_payment(context, order)
            if checked is None or found.step == Step.SENT:
                user_id = str(found.exchange_id)
                if store and not is_settled:
                    _check_sender(found, task_name(context))
                self.log.info("User %s was created before.", user_id)
            else:
                if store:
                    store.expect(self.application, user=reference)
                try:
                    user_id = self._create(context, hook, attempt, order, *checked)
                except QuoineRefusedError as error:
                    was_in_doubt = any(event.event == "absent" for event in ledger.history(order))
                    if was_in_doubt and _names_taken_email(error.message):
                        raise stop(
                            "The exchange has a user with this e-mail address, which is probably ours.",
                            done="This attempt did nothing at the exchange; an earlier one was in doubt.",
                            next="Look the user up at the exchange, then settle it as said below.",
                            details=f"{error}\n{how_to_settle(order)}",
                        ) from None
                    raise
        if store:
            self._settle(store, reference)
        return user_id

    def _applied(self, store: ApplicationStore) -> tuple[str, Application | None, bool]:
        """
        Read the application.

        :return: what stands for the user in the ledger, if that is known without the application; the application,
            unless it is gone; and whether it is gone because the exchange has the user.
        """
        from airflow_provider_quoine.applications.store import EXPECTED
        from airflow_provider_quoine.exchange.errors import QuoineInputError

        if reference := store.user_of(self.application):
            return reference, None, True
        try:
            return "", store.read(self.application), False
        except QuoineInputError:
            # Its time is over, and it may have been sent before.
            if reference := store.record_of(self.application).get(EXPECTED, ""):
                return reference, None, False
            raise

    def _create(
        self, context: Context, hook: QuoineHook, attempt: Attempt, order: Order, checked: Application, password: str
    ) -> str:
        from airflow_provider_quoine.payments.users import allow_user

        def allow(_: Transaction) -> str:
            name_payment(context, order)
            return allow_user(hook, order)

        with hook.get_conn(priority=Priority.URGENT) as client:
            # Before the ledger, because an attempt must send within seconds of writing "sending".
            slot = client.take_slot()
            user_id = attempt.send(
                lambda in_time: client.create_onboarding_user(
                    user=checked.user, password=password, slot=slot, before_send=in_time, **checked.documents
                ),
                identify=str,
                in_flight=timedelta(seconds=client.in_flight_seconds(*checked.documents.values())),
                allow=allow,
            )
        self.log.info("The exchange created user %s.", user_id)
        return user_id

    def _input(self, application: Application | None, max_megabytes: float) -> tuple[Application, str]:
        """Check an application, or what the task itself was given; a person learns of all that is wrong at once."""
        from airflow_provider_quoine.applications.checks import check_onboarding

        if application:
            form = asdict(application.user)
            documents = {field: partial(application.documents.__getitem__, field) for field in DOCUMENT_FIELDS}
        else:
            form = {field: getattr(self, name) for name, field in (_REQUIRED | _OPTIONAL).items()}
            documents = {
                field: partial(read_document, path=getattr(self, field), max_megabytes=max_megabytes)
                for field in DOCUMENT_FIELDS
            }
        check = partial(check_onboarding, form, documents, max_megabytes=max_megabytes)
        # A password that is made here is made once all else is right.
        checked = check_all((check,) if self.generate_password else (check, self._password))[0]
        return checked, self._password()

    def _settle(self, store: ApplicationStore, user: str) -> None:
        try:
            store.settle(self.application, user=user)
        except Exception as error:  # noqa: BLE001 - each store has errors of its own
            # The user exists, so the task has succeeded.
            self.log.warning(
                "Application %s could not be removed (%s). It is removed after %s at the latest.",
                self.application,
                type(error).__name__,
                store.kept_for,
            )

    def _password(self) -> str:
        from airflow_provider_quoine.exchange.models import check_password, make_password

        if self.generate_password and not Variable.get(self.password_variable, default=None):
            write_secret_variable(
                self.password_variable, make_password(), description="Password of a user at the exchange"
            )
        password = read_secret_variable(self.password_variable)
        check_password(password)
        return password


def _check_sender(found: Payment, task: str) -> None:
    """See that a user comes from this task, in whatever try, or from a person's word."""
    sender, ours = (name.rpartition(", try ")[0] for name in (found.task, task))
    if sender not in ("", ours):
        raise stop(
            f"Another form has made user {found.exchange_id} with this e-mail address.",
            done="This application was not sent.",
            next="The same person: nothing is left to do. Another person: another address is needed.",
            details=f"The user was sent by {found.task}. The exchange takes each address once. For another person, "
            "have the form filled in again, with that person's own address.",
        )


def _names_taken_email(words: str) -> bool:
    """
    Whether a refusal means that a user has this e-mail already (decisions, Onboarding: the exact words are not on
    record).
    """
    said = words.casefold()
    return "mail" in said and any(word in said for word in ("taken", "already", "exist", "in use"))
