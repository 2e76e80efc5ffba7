"""What a person is told of a reconciliation's findings."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest

from airflow_provider_quoine.failures import WIDTH
from airflow_provider_quoine.operators.findings import table
from airflow_provider_quoine.payments.schema import Step
from tests.support.reconciled import FIELDS, World


def test_the_table_names_each_finding_and_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with World(tmp_path, monkeypatch) as world:
        world.sent("pending", missing=True)
        world.sent("pending", credentials_variable="gone")
        world.stands(Step.UNKNOWN, ago=timedelta(days=2))
    with world.sandbox:
        findings = world.reconcile().findings
    assert len(findings) == 3
    lines = list(table(findings))
    text = "\n".join(lines)
    assert max(map(len, lines)) <= WIDTH
    assert all(f"{finding.kind:14} {finding.payment.order.reference} " in text for finding in findings)
    assert " ".join(text.split()).count("airflow quoine payments exists REFERENCE") == 3
    secrets = [*(user.api_secret for user in world.users), FIELDS["email"], FIELDS["password"]]
    told = text + json.dumps([finding.as_dict() for finding in findings])
    assert not any(secret in told for secret in secrets)
