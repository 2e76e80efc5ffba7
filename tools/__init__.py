"""Development tools: a real Airflow for tests, and the demo. Not part of the wheel."""
