"""What only developing needs: a real Airflow to test on, and the demo. Not part of the wheel."""
