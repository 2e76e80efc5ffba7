"""Asynchronous waits that run in the triggerer."""
