"""
The stream: the server side of Pusher protocol 7, fed by a generated market, by a replay, or by published events.

Entrances: :data:`.connection.router` (WebSocket), :data:`.publishing.router` (Pusher's HTTP API), and
:class:`.hub.Hub`, which holds connections and subscriptions.
"""

#: Modules that may be used from outside of this folder; tests/test_imports.py holds it.
__all__ = ["connection", "hub", "publishing"]
