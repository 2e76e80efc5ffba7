"""Sensors that wait for an onboarding status or a withdrawal state."""
