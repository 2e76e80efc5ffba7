"""Airflow's LocalExecutor, whose workers have imported what every task imports."""

from __future__ import annotations

from importlib import import_module

from airflow.executors import local_executor

#: Each task is a fork of a worker, which is a fork of the scheduler. What neither has imported, each task imports
#: anew, and so does each new worker: that took half of a task's time of the processor.
BEFORE_FORK = (
    "airflow.dag_processing.dagbag",
    "airflow.sdk.definitions.decorators",
    "airflow.sdk.execution_time.supervisor",
    "airflow_provider_quoine.exchange.rest.client",
    "airflow_provider_quoine.operators.authorization",
    "airflow_provider_quoine.operators.reconciliation",
    "airflow_provider_quoine.operators.withdrawals",
    "airflow_provider_quoine.payments.approvals",
    "airflow_provider_quoine.payments.configuration",
    "airflow_provider_quoine.sandbox.control",
    "airflow_provider_quoine.sensors.onboarding",
    "airflow_provider_quoine.sensors.withdrawals",
    "jinja2.ext",
)


# Its name says to the provider, and to Airflow, that it runs tasks on this host.
class LocalExecutor(local_executor.LocalExecutor):
    """Imports before it forks. The DAG files, and the operators that the tests interrupt, are each task's own."""

    #: Nobody looks at logs on Airflow's page here.
    serve_logs = False

    def start(self) -> None:
        """Start the workers."""
        for name in BEFORE_FORK:
            import_module(name)
        super().start()
