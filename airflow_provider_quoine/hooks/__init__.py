"""How an Airflow connection becomes a client and a stream."""
