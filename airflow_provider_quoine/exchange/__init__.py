"""The exchange itself: REST client and market streams. Imports nothing of Airflow."""
