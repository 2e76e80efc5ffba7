"""Pusher: one supervised connection for everybody who listens. Entrance: :class:`.pusher.PusherStream`."""

#: Modules that may be used from outside of this folder; tests/test_imports.py holds it.
__all__ = ["events", "pusher"]
