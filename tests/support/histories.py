"""How many random histories the tests play that play many."""

from __future__ import annotations

import os

HISTORIES = int(os.environ.get("QUOINE_HISTORIES", "150"))
"""Enough to find what is broken; all checks play 1,000 (``tools/lanes.py``), and a long run plays 10,000."""
