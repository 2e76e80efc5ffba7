"""Measurements of what the provider promises; run from the repository's root."""
