"""Quotes a response in an error: the server's own words, without markup and secrets, and not too long."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from typing import Any
from urllib.parse import quote, quote_plus

from airflow_provider_quoine.exchange.exact_json import write_json

EXCERPT_CHARACTERS = 500
"""Characters of a body, or of the server's words, that an error quotes at most."""

_PAGE_CHARACTERS = 8 * EXCERPT_CHARACTERS
"""Characters of a page's text that are decoded. ``html.unescape`` fails on an entity of more than 4,300 digits."""

# Takes linear time on every input: what an alternative has read to its end, it keeps. Styles, scripts and comments are
# not for people.
_MARKUP = re.compile(
    r"<(?:style|script)\b.*?(?:</(?:style|script)\b[^<>]*>?|\Z)|<!--.*?(?:-->|\Z)|<[^<>]*>|<", re.IGNORECASE | re.DOTALL
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\ufeff]+")
_SHORTEST_WORD = 3
_NUMBER = re.compile(r"[+\d\s().-]+")
_OF_A_NUMBER = 6
"""Last digits by which a phone number is known, whatever country code it has."""
_BETWEEN = r"[\s().-]{0,2}"
_SPELLINGS: tuple[Callable[[str], str], ...] = (
    str,
    lambda text: json.dumps(text)[1:-1],
    lambda text: quote(text, safe="", errors="replace"),
    lambda text: quote_plus(text, errors="replace"),
    html.escape,
)


def words(answer: Any) -> str:
    """
    Return the server's own words, from all five JSON shapes on record (facts, Error bodies), plain text or HTML.

    The time that it takes grows with the length only.

    :param answer: from :func:`~airflow_provider_quoine.exchange.rest.responses.parse`.
    :return: may be empty; not yet scrubbed.
    """
    if isinstance(answer, dict):
        said = (_flat(answer[key]) for key in ("message", "errors", "error") if key in answer)
        return "; ".join(filter(None, said))
    if is_page(answer):
        text = " ".join(_MARKUP.sub(" ", answer).split())
        return " ".join(html.unescape(text[:_PAGE_CHARACTERS]).split())
    return _flat(answer)


def is_page(answer: Any) -> bool:
    """Tell whether an answer is a web page, which cannot come from the exchange."""
    return isinstance(answer, str) and answer.lstrip().startswith("<")


def excerpt(answer: Any) -> str:
    """Return the body to quote: its text, or its JSON written anew, so that no escape sequence hides a secret."""
    return words(answer) if isinstance(answer, str) else write_json(answer)


def _flat(value: Any) -> str:
    if isinstance(value, dict):
        inner = value.get("msg", value.get("message"))
        if inner is not None:
            return _flat(inner)
        return "; ".join(f"{key}: {_flat(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(_flat, value))
    return "" if value is None else str(value).strip()


def _patterns(texts: Iterable[str]) -> list[str]:
    spellings = {spelling(text) for text in texts for spelling in _SPELLINGS}
    # The longest first: a shorter one inside it would leave its rest.
    return [re.escape(each) for each in sorted(spellings, key=len, reverse=True)]


def _personal_patterns(texts: Iterable[str]) -> Iterator[str]:
    values = {*texts}
    numbers = {text for text in values if _NUMBER.fullmatch(text)}
    # A server may write a number in its own way, and name a person by one of the names.
    for digits in (re.sub(r"\D", "", text) for text in numbers):
        if len(digits) >= _OF_A_NUMBER:
            last = _BETWEEN.join(digits[-_OF_A_NUMBER:])
            yield rf"(?<!\d)(?:[+(]?(?:[0-9]{_BETWEEN}){{0,9}}){last}(?!\d)"
    words = {word for text in values - numbers for word in text.split() if len(word) >= _SHORTEST_WORD}
    for each in _patterns(values | words):
        yield rf"(?i:(?<!\w){each}(?!\w))"


class Scrubber:
    """
    Makes a server's text fit for an error: without control characters and secrets, and not too long.

    :param secrets: to hide, as they are and as JSON, a URL or HTML writes them; empty ones are left out.
    :param personal: to hide likewise, as whole words in any case: a short name may be a part of any word. So is each
        word of one, and a phone number however it is written.
    """

    def __init__(self, secrets: Iterable[str], personal: Iterable[str] = ()) -> None:
        self._secrets = tuple(filter(None, secrets))
        self._personal = tuple(filter(None, personal))

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        # Compiled on first use: it costs as much as half a request.
        patterns = [*_patterns(self._secrets), *_personal_patterns(self._personal)]
        return re.compile("|".join(patterns) or r"(?!)")

    def __repr__(self) -> str:
        return "Scrubber(***)"

    def hide(self, text: str) -> str:
        """Return the text without secrets and control characters."""
        return self._pattern.sub("***", _CONTROL.sub("", text))

    def __call__(self, text: str) -> str:
        """Return the text without secrets, on one line, cut to :data:`EXCERPT_CHARACTERS`."""
        clean = self.hide(text).strip()
        # Cut last: a secret that is cut would not be found.
        return clean if len(clean) <= EXCERPT_CHARACTERS else f"{clean[:EXCERPT_CHARACTERS]}…"
