"""
Every citation of a source points to a heading of a page in docs/reference.

``(facts, Error bodies)`` names a page and a heading, ``(api-reference 2.1)`` a heading by its number, and
``(api-reference 2.1, 2.2)`` two of them. A semicolon stands between two citations, and each of them is whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "docs" / "reference"
PAGES = ("api-reference", "facts", "decisions", "pusher")
SEARCHED = ("airflow_provider_quoine", "benchmarks", "dags", "docs", "tests", "tools")
SUFFIXES = {".py", ".rst", ".md", ".html", ".js"}

#: A line and its underline.
_HEADING = re.compile(r"^(\S.*)\n([=\-~^])\2+$", re.MULTILINE)
#: The end of a line, with the mark of a comment that goes on.
_LINE_END = re.compile(r"\n[^\S\n]*(?:#:?)?")
_NUMBERS = re.compile(r"(?:I{1,2}|\d(?:\.\d)?)\b(?:(?:, +| +and +)(?:I{1,2}|\d(?:\.\d)?)\b)*")


@cache
def headings(page: str) -> tuple[str, ...]:
    """The headings of a page, without its title; the longest first."""
    found = [match[1] for match in _HEADING.finditer((REFERENCE / f"{page}.rst").read_text(encoding="utf-8"))]
    return tuple(sorted(found[1:], key=len, reverse=True))


def heading_at(text: str, page: str) -> str | None:
    """The heading of a page that a text begins with."""
    found = (re.match(rf"{re.escape(heading)}\b", text) for heading in headings(page))
    return next((match[0] for match in found if match), None)


_HEADINGS = "|".join(re.escape(heading) for page in PAGES for heading in headings(page))
_SEPARATOR = r"(?:[^\w,]*[^\w\s,][^\w,]*|,\ +)"
#: What looks like a citation: it has to be one.
_CANDIDATE = re.compile(
    rf"""
    (?<![\w/`.-])api-reference\b(?![\w/`.-])
    | (?<![\w/`.-])(?:facts|decisions|pusher)(?=,\ +[A-Z])
    | \bfacts(?=,\ +")
    | (?<=\s\()(?:facts|decisions|pusher)\b
    | \bpusher\ +notes\b
    | (?<![\w/.-])(?:[Aa]pi|API)\ +[Rr]eference(?=,?\ +(?:I{{1,2}}\b|\d))
    | (?<![\w/.-])(?i:facts|decisions|pusher|api[-\ ]reference)(?:\.rst)?`*(?={_SEPARATOR}(?i:{_HEADINGS})\b)
    | \b[Ff]indings(?=[,:]\ +[A-Z]\d)
    | (?<=\()[Dd]ecided\b
    | \b[Dd]ecided(?=\ *[:)])
    | \b(?:design|findings)\.md\b
    """,
    re.VERBOSE,
)


def fault(page: str, rest: str) -> str | None:
    """
    Say what is wrong with a citation.

    :param page: the name that it begins with
    :param rest: the text after that, each run of blanks as one
    """
    if page not in PAGES:
        return "is no citation of a page and a heading"
    if page == "api-reference" and (numbers := _NUMBERS.match(rest.removeprefix(" "))):
        known = {heading.split(" ")[0] for heading in headings(page)}
        unknown = set(re.split(r", | and ", numbers[0])) - known
        return f"names no heading of {page}: {', '.join(sorted(unknown))}" if unknown else None
    heading = heading_at(rest.removeprefix(", "), page) if rest.startswith(", ") else None
    if heading is None:
        return f"names no heading of {page}"
    following = rest[len(heading) + 2 :]
    for mark in ("; ", ", ", " and "):
        if following.startswith(mark) and heading_at(following.removeprefix(mark), page):
            return f"is followed by a heading without its page: write '; {page}, ...'"
    return None


def faults(text: str) -> Iterator[tuple[int, str]]:
    """Give the line and the fault of every citation in a text that does not resolve."""
    flat = _LINE_END.sub(lambda match: " " * len(match[0]), text)
    for match in _CANDIDATE.finditer(flat):
        rest = re.sub(" +", " ", flat[match.end() : match.end() + 200])
        problem = fault(match[0], rest)
        if problem:
            yield text.count("\n", 0, match.start()) + 1, f"{match[0] + rest[:40]!r} {problem}"


def sources() -> Iterator[Path]:
    """All texts of the repository but this one."""
    yield from ROOT.glob("*.md")
    for folder in SEARCHED:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in SUFFIXES and path != Path(__file__) and not {"_build", "node_modules"} & set(path.parts):
                yield path


def test_every_citation_resolves() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {problem}"
        for path in sources()
        for line, problem in faults(path.read_text(encoding="utf-8"))
    ]
    assert not found, "\n".join(found)


def test_the_pages_are_cited() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in sources() if path.suffix == ".py")
    assert [page for page in PAGES if not re.search(rf"\({page}[ ,]", text)] == []


@pytest.mark.parametrize("page", PAGES)
def test_a_heading_names_one_place(page: str) -> None:
    assert len(set(headings(page))) == len(headings(page)) > 2


@pytest.mark.parametrize(
    "text",
    [
        "300 in 5 minutes (api-reference, Rate limit).",
        "a withdrawal (api-reference 2.1, 2.2)",
        "channels of api-reference II",
        "ids (facts, Onboarding; facts, Withdrawals) as text",
        "#: the words (facts,\n#: Error bodies), so",
        "    in clear\n    (decisions,\n    Budget: 3 s)",
        "a link to :doc:`api-reference` and a file docs/reference/api-reference.rst",
        "the person who decided, and when; facts are facts, as ever; stringify(facts)",
    ],
)
def test_good_forms(text: str) -> None:
    assert list(faults(text)) == []


@pytest.mark.parametrize(
    "text",
    [
        "(api-reference 3.1)",
        "(api-reference 2.1, 2.3)",
        "the api-reference says",
        "(facts, Nonsense)",
        " (facts)",
        "(facts, Onboarding; Withdrawals)",
        "(facts, Onboarding and Withdrawals)",
        '(facts, "Error bodies")',
        " (facts: 900)",
        "(pusher notes, Protocol 7)",
        "(facts: Error bodies)",
        "facts (Error bodies)",
        "(Facts, Error bodies)",
        "(facts, error bodies)",
        "see facts.rst, Error bodies",
        "`decisions` - Budget",
        "(api-reference: 2.1)",
        "the API reference 2.1",
        "Findings, M2.",
        "(decided)",
        "(decided: facts, Withdrawals)",
        "Decided: all else waits",
        "\n    Beyond it nothing is (decided).",
    ],
)
def test_bad_forms(text: str) -> None:
    assert list(faults(text))
