"""The example's reconciliation, started by hand."""

from __future__ import annotations

from airflow.sdk import DAG

from airflow_provider_quoine.operators.reconciliation import QuoineReconcilePaymentsOperator

with DAG("reconcile", schedule=None):
    QuoineReconcilePaymentsOperator(task_id="reconcile")
