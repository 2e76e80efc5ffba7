"""Pusher: one supervised connection for all listeners of an event loop. Entrance: :class:`.pusher.PusherStream`."""

#: Modules that may be used from outside of this folder; tests/test_imports.py holds it.
__all__ = ["events", "pusher"]
