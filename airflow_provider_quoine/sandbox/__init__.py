"""
The Quoine exchange on localhost, to develop and test against.

It implements the server side of the partner API (:mod:`.rest`) and of the Pusher stream (:mod:`.stream`), and shares no
code with the client in ``exchange/``.

Entrances: ``python -m airflow_provider_quoine.sandbox`` or ``quoine-sandbox`` on the command line,
:class:`.server.SandboxServer` in a test, :class:`.control.SandboxControl` to control a running sandbox. ``faults``,
``refusals`` and ``sockets`` are shared by ``rest/`` and ``stream/``.
"""

#: Modules that may be used from outside of this folder; tests/test_imports.py holds it.
__all__ = ["control", "faults", "refusals", "server", "settings", "sockets"]
