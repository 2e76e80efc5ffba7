"""Onboarding over HTTP: accepted requests, refused requests, and the messages."""

from __future__ import annotations

import hashlib
import time
from email.utils import formatdate

import pytest

from airflow_provider_quoine.sandbox.server import SandboxServer
from airflow_provider_quoine.sandbox.settings import SandboxSettings
from tests.support.clock import ManualClock
from tests.support.partner import FIELDS, PASSWORD, Partner


def test_a_complete_request_makes_a_user(partner: Partner) -> None:
    response = partner.onboard(first_furi_name="ハナコ", last_furi_name="ヤマダ", city="東京", postcode="100-0001")
    assert response.status_code == 200
    assert response.json() == {"success": True, "user_id": response.json()["user_id"]}
    (user,) = partner.control.state()["users"]
    assert user["user_id"] == response.json()["user_id"]
    assert (user["first_furi_name"], user["city"]) == ("ハナコ", "東京")
    digest = hashlib.sha256(b"%PDF-1").hexdigest()
    assert user["documents"]["id_document"] == {"filename": "passport.pdf", "size": 6, "sha256": digest}


RULE = "Password must have at least 8 characters with a lower-case letter, an upper-case letter and a digit"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        *(({name: None}, f"{name.replace('_', ' ').capitalize()} cannot be blank") for name in FIELDS),
        *(({name: "  "}, f"{name.replace('_', ' ').capitalize()} cannot be blank") for name in FIELDS),
        ({"id_document": None}, "Id document cannot be blank"),
        ({"proof_address": None}, "Proof address cannot be blank"),
        ({"bank_statement": ("empty.pdf", b"")}, "Bank statement cannot be blank"),
        ({"id_document": "no file, a text"}, "Id document cannot be blank"),
        ({"id_document": ("virus.exe", b"MZ")}, "Id document must be one of pdf, xps, jpg, jpeg, png, gif"),
        ({"id_document": ("pdf", b"%PDF")}, "Id document must be one of pdf, xps, jpg, jpeg, png, gif"),
        ({"email": "nobody"}, "Email is invalid"),
        ({"phone": "call me"}, "Phone is invalid"),
        ({"phone": "+81 90-1790-1357"}, "Phone is invalid"),
        ({"country": "Japan"}, "Country is not a two-letter code"),
        ({"country": "jp"}, "Country is not a two-letter code"),
        ({"password": "Short1"}, RULE),
        ({"password": "nouppercase1"}, RULE),
        ({"password": "NOLOWERCASE1"}, RULE),
        ({"password": "NoDigitAtAll"}, RULE),
        ({"postal_code": "100-0001"}, "Unknown parameter: postal_code"),
    ],
)
def test_a_wrong_parameter_is_refused_with_a_message(
    partner: Partner, changes: dict[str, object], message: str
) -> None:
    response = partner.onboard(**changes)
    assert response.status_code == 422
    assert response.json()["success"] is False
    assert response.json()["message"] == message
    assert partner.control.state()["users"] == []


def test_an_email_is_taken_once(partner: Partner) -> None:
    assert partner.onboard().status_code == 200
    response = partner.onboard(email=FIELDS["email"].upper())
    assert (response.status_code, response.json()["message"]) == (422, "Email has already been taken")


def test_a_form_without_files_is_refused(partner: Partner) -> None:
    response = partner.call("POST", "/users/onboarding", partner.vendor, data=FIELDS)
    assert response.json() == {"success": False, "message": "Content-Type must be multipart/form-data"}
    assert response.status_code == 422


def test_a_user_s_key_has_no_access_to_onboarding(partner: Partner) -> None:
    user = partner.approved_user()
    payload = {"user_id": int(user.api_id), "password": PASSWORD}
    response = partner.call("POST", "/users/onboarding_status", user, json=payload)
    assert response.status_code == 503
    assert response.json() == {"message": "Your application has no access to this API call"}


@pytest.mark.parametrize("user_id", [0, 999999, -1, 10**30])
def test_an_unknown_user_and_a_wrong_password_look_the_same(partner: Partner, user_id: int) -> None:
    known = partner.onboard().json()["user_id"]
    for response in (partner.status(user_id), partner.status(known, "Wrong-passw0rd")):
        assert (response.status_code, response.json()) == (401, {"message": "Unauthorized access"})


def test_the_status_can_be_asked_as_json_and_as_a_form(partner: Partner) -> None:
    user_id = partner.onboard().json()["user_id"]
    payload = {"user_id": str(user_id), "password": PASSWORD}
    path = "/users/onboarding_status"
    responses = [
        partner.call("POST", path, partner.vendor, json=payload),
        partner.call("POST", path, partner.vendor, data=payload),
    ]
    for response in responses:
        assert response.json()["status"] in {"PENDING", "DOCUMENTS_SUBMITTED", "APPROVED"}


def test_nothing_is_done_without_a_signature(partner: Partner) -> None:
    response = partner.call("POST", "/users/onboarding", partner.vendor, sign=lambda key, request: {}, data=FIELDS)
    assert (response.status_code, response.text) == (401, "API Authentication failed")
    assert response.headers["Content-Type"].startswith("text/plain")
    assert "Date" in response.headers


def test_a_wrong_clock_and_a_wrong_key_get_different_responses_and_the_response_has_the_right_time() -> None:
    clock = ManualClock(time.time() + 1000)
    with SandboxServer(SandboxSettings(clock=clock)) as sandbox:
        response = Partner(sandbox).status(1)
    assert (response.status_code, response.text) == (401, "API Authentication failed: Date is older than 900 seconds")
    assert response.headers["Date"] == formatdate(clock(), usegmt=True)
