"""Draws a capture as a picture: coverage, gaps, and the spread over its time. SVG, so that no library is needed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

import pendulum

from airflow_provider_quoine.datasets.writing import whole_file
from airflow_provider_quoine.formats.entries import gaps_from, span_from, stretches_from
from airflow_provider_quoine.formats.kinds import StreamKind, placed_by
from airflow_provider_quoine.formats.pieces import disjoint

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath

    from airflow_provider_quoine.datasets.reading import StoredCapture

BUCKETS = 288
"""Stretches of time in which values are summed up: five minutes of a day."""

LEFT, WIDTH = 70, 864
STRIP_TOP, STRIP_HEIGHT = 80, 22
CHART_TOP, CHART_HEIGHT = 136, 200
STYLE = (
    "rect{shape-rendering:crispEdges}"
    "text{font:12px sans-serif;fill:#1f2937}.title{font-size:18px}.listened{fill:#86efac}.gap{fill:#f87171}"
    ".shade{fill:#fecaca}.band{fill:#bfdbfe}.line{fill:none;stroke:#1d4ed8;stroke-width:1.5}"
    ".axis{stroke:#9ca3af;fill:none}.end{text-anchor:end}.middle{text-anchor:middle}"
)


@dataclass(kw_only=True)
class Bucket:
    """Values of a stretch of time."""

    count: int = 0
    total: float = 0.0
    low: float = field(default=float("inf"))
    high: float = field(default=float("-inf"))

    def add(self, value: float) -> None:
        """Add a value."""
        self.count += 1
        self.total += value
        self.low, self.high = min(self.low, value), max(self.high, value)


def picture_of(capture: StoredCapture) -> ObjectStoragePath:
    """Return where a capture's picture stands."""
    return capture.root / f"_{capture.stem}.report.svg"


def write_report(capture: StoredCapture, *, timezone: str) -> ObjectStoragePath:
    """
    Draw a capture into a file beside it.

    :param timezone: IANA name of the zone of the time axis.
    :return: the file.
    :raises ValueError: if the capture is damaged, or there is no such zone.
    :raises OSError: if the store refuses, or cannot be reached.
    """
    drawing = "\n".join(_draw(capture, timezone)).encode()
    with whole_file(picture_of(capture)) as file:
        file.write(drawing)
    return picture_of(capture)


def facts_of(manifest: dict[str, Any]) -> str:
    """Return the numbers of a capture as one line."""
    return (
        f"completeness {manifest['completeness']:.4%}; {manifest['rows']} rows; {manifest['gaps']} gaps, "
        f"{manifest['gap_seconds']:.1f} s; {manifest['reconnects']} reconnects; {manifest['dropped']} dropped; "
        f"{manifest['skipped']} skipped"
    )


def _draw(capture: StoredCapture, timezone: str) -> Iterator[str]:
    manifest, zone = capture.manifest, pendulum.timezone(timezone)
    told = manifest["capture"]
    since, until = span_from(manifest)
    seconds = (until - since).total_seconds()

    def x(moment: datetime) -> float:
        return LEFT + WIDTH * (moment - since).total_seconds() / seconds

    def bar(kind: str, begin: datetime, end: datetime, top: float, height: float) -> str:
        # A gap of a second in a day is seen too.
        wide = max(x(end) - x(begin), 0.7)
        return f'<rect class="{kind}" x="{x(begin):.2f}" y="{top}" width="{wide:.2f}" height="{height}"/>'

    gaps = disjoint(gap for entry in manifest["parts"] for gap in gaps_from(entry))
    yield f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + WIDTH + 26} 380"><style>{STYLE}</style>'
    title = f"{told['stream']} {told['pair'] or ', '.join(told['channels'])}"
    times = f"{since.astimezone(zone):%Y-%m-%d %H:%M:%S} to {until.astimezone(zone):%Y-%m-%d %H:%M:%S} {timezone}"
    yield f'<text class="title" x="{LEFT}" y="28">{escape(title)}; {escape(times)}</text>'
    yield f'<text x="{LEFT}" y="50">{escape(facts_of(manifest))}</text>'
    yield f'<text class="end" x="{LEFT - 8}" y="{STRIP_TOP + 15}">listened</text>'
    for entry in manifest["parts"]:
        for stretch in stretches_from(entry):
            yield bar("listened", stretch.since, stretch.until, STRIP_TOP, STRIP_HEIGHT)
    for gap in gaps:
        yield bar("gap", gap.since, gap.until, STRIP_TOP, STRIP_HEIGHT)
        yield bar("shade", gap.since, gap.until, CHART_TOP, CHART_HEIGHT)
    yield from _chart(capture, since, seconds)
    for share in range(9):
        moment = since + (until - since) * share / 8
        form = "%H:%M" if seconds >= 3600 else "%H:%M:%S"
        yield f'<text class="middle" x="{x(moment):.1f}" y="356">{moment.astimezone(zone):{form}}</text>'
    yield "</svg>"


def _chart(capture: StoredCapture, since: datetime, seconds: float) -> Iterator[str]:
    """Draw the spread of order books, and of everything else how many rows there are."""
    buckets = [Bucket() for _ in range(BUCKETS)]
    stream = capture.manifest["capture"]["stream"]
    is_book = stream == StreamKind.ORDER_BOOK
    for row in capture.rows():
        after = (datetime.fromisoformat(row[placed_by(stream)]) - since).total_seconds()
        bucket = buckets[min(max(int(BUCKETS * after / seconds), 0), BUCKETS - 1)]
        if not is_book:
            bucket.add(1.0)
        elif row["spread"] is not None and not row["stale"]:
            bucket.add(float(row["spread"]))
    if not is_book:
        buckets = [Bucket(count=1, total=each.total, low=each.total, high=each.total) for each in buckets]
    seen = [each for each in buckets if each.count]
    low = min((each.low for each in seen), default=0.0) if is_book else 0.0
    high = max((each.high for each in seen), default=1.0)
    high = high if high > low else low + 1

    def point(number: int, value: float) -> str:
        across = LEFT + WIDTH * (number + 0.5) / BUCKETS
        return f"{across:.1f},{CHART_TOP + CHART_HEIGHT * (high - value) / (high - low):.1f}"

    yield f'<text class="end" x="{LEFT - 8}" y="{CHART_TOP - 8}">{"spread" if is_book else "rows"}</text>'
    for value, y in ((high, CHART_TOP + 10), (low, CHART_TOP + CHART_HEIGHT)):
        yield f'<text class="end" x="{LEFT - 8}" y="{y}">{value:.6g}</text>'
    for run in _runs(buckets):
        if is_book:
            outline = [point(number, buckets[number].high) for number in run]
            outline += [point(number, buckets[number].low) for number in reversed(run)]
            yield f'<polygon class="band" points="{" ".join(outline)}"/>'
        line = " ".join(point(number, buckets[number].total / buckets[number].count) for number in run)
        yield f'<polyline class="line" points="{line}"/>'
    yield f'<rect class="axis" x="{LEFT}" y="{CHART_TOP}" width="{WIDTH}" height="{CHART_HEIGHT}"/>'


def _runs(buckets: list[Bucket]) -> Iterator[range]:
    """Yield the runs of neighbours that have values: no line is drawn over a gap."""
    begin = None
    for number, bucket in enumerate([*buckets, Bucket()]):
        if bucket.count and begin is None:
            begin = number
        elif not bucket.count and begin is not None:
            yield range(begin, number)
            begin = None
