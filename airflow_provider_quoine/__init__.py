"""Apache Airflow provider for the Quoine exchange's partner API."""

__version__ = "0.1.0"
