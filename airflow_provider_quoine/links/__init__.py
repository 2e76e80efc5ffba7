"""What a person can follow from a task's page to the exchange."""
