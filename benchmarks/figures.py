"""What one run of a benchmark found, told as soon as it is known: a run that is stopped has still said something."""

from __future__ import annotations

import json

Figures = dict[str, float]
"""Figures by name, with their unit in it."""


def tell(what: str, figures: Figures) -> None:
    """
    Print a run's figures as one line.

    :param what: was measured.
    """
    print(what, json.dumps({name: round(figure, 3) for name, figure in figures.items()}), flush=True)
