"""Every picture of pages and reports, drawn on the server as SVG.

Colours come from CSS classes (`c0` ... `c7` for series, see `static/style.css`), never from inline styles, so pictures
follow the reader's dark or light mode and pass a strict content security policy. All text is escaped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from markupsafe import Markup

SERIES = 8


@dataclass(frozen=True, slots=True)
class Dot:
    """A candidate in the history.

    Attributes:
        number: place on the x axis.
        score: 0 to 1.
        series: colour.
        square: drawn as a square (a re-stacked candidate) instead of a circle.
        faint: scored on fewer items than the leaders, so not compared with them.
        stderr: half a whisker's length, drawn if given.
        title: what a pointer shows.
    """

    number: int
    score: float
    series: int
    square: bool = False
    faint: bool = False
    stderr: float | None = None
    title: str = ""


@dataclass(frozen=True, slots=True)
class Level:
    """A horizontal line with a name: a parent's score."""

    score: float
    label: str


@dataclass(frozen=True, slots=True)
class Slot:
    """One output layer: `parts` are (series, share, text, title), shares summing to 1."""

    label: str
    parts: tuple[tuple[int, float, str, str], ...]


@dataclass(frozen=True, slots=True)
class Span:
    """A row of an interval plot: a value with its interval, in any one unit."""

    label: str
    value: float
    low: float
    high: float
    strong: bool = True


@dataclass(frozen=True, slots=True)
class _Frame:
    """A plot's rectangle and its scales."""

    left: float
    top: float
    right: float
    bottom: float
    x_high: float
    y_low: float
    y_high: float
    x_low: float = 0.0

    def x(self, value: float) -> float:
        return self.left + (self.right - self.left) * (value - self.x_low) / (self.x_high - self.x_low)

    def y(self, value: float) -> float:
        share = (value - self.y_low) / (self.y_high - self.y_low)
        return self.bottom - (self.bottom - self.top) * share


def history(dots: Sequence[Dot], levels: Sequence[Level], *, width: int = 720, height: int = 300) -> Markup:
    """Score of every candidate in order, the best so far as a stepped line, the parents as dashed lines.

    Args:
        dots: candidates; faint ones do not count for the best so far.
        levels: parents.
        width, height: size of the drawing in its own units.
    """
    values = [dot.score + sign * (dot.stderr or 0.0) for dot in dots for sign in (-1, 1)]
    values += [level.score for level in levels]
    if not values:
        return Markup("")
    ticks = nice_ticks(min(values), max(values), 5)
    last = max((dot.number for dot in dots), default=0) + 1
    x_ticks = [tick for tick in nice_ticks(0, last, 6) if tick <= last and tick % 1 == 0]
    frame = _Frame(46, 12, width - (96 if levels else 16), height - 34, last, ticks[0], ticks[-1])
    radius = 4.0 if len(dots) <= 200 else 2.6
    # What counts lies above what does not.
    marks = [_dot(dot, frame, radius) for dot in sorted(dots, key=lambda dot: not dot.faint)]
    parts = [*_axes(frame, ticks, x_ticks), *_levels(levels, frame), *marks, _best_line(dots, frame)]
    peak = max((dot for dot in dots if not dot.faint), key=lambda dot: dot.score, default=None)
    said = f"Scores of {len(dots)} candidates in the order they were proposed"
    said += f"; best so far {percent(peak.score)} by number {peak.number}." if peak else "."
    return _svg("history", width, height, said, parts)


def curve(
    points: Sequence[tuple[float, float]],
    levels: Sequence[Level],
    *,
    end: float,
    unit: str,
    stepped: bool = True,
    shares: bool = True,
    width: int = 720,
    height: int = 240,
) -> Markup:
    """A score against what was spent for it: a stepped line of leaders, or a line through every look.

    Args:
        points: (spent, score), rising in what was spent.
        levels: the parents.
        end: where the axis ends.
        unit: what is spent.
        shares: whether scores are shares, written as percentages; a loss is not.
    """
    values = [score for _, score in points] + [level.score for level in levels]
    if not points:
        return Markup("")
    ticks = nice_ticks(min(values), max(values), 5)
    end = max(end, points[-1][0], 1.0)
    frame = _Frame(46, 12, width - (96 if levels else 16), height - 34, end, ticks[0], ticks[-1])
    x_ticks = [tick for tick in nice_ticks(0, end, 6) if tick <= end]
    path = [f"M{frame.x(points[0][0]):.1f},{frame.y(points[0][1]):.1f}"]
    for x, y in points[1:]:
        ahead, up = frame.x(x), frame.y(y)
        path.append(f"H{ahead:.1f}V{up:.1f}" if stepped else f"L{ahead:.1f},{up:.1f}")
    tail = f"H{frame.x(end):.1f}" if stepped else ""
    said = percent if shares else _plain
    marks = [
        f"<g><title>{escape(f'{said(y)} after {x:,.0f} {unit}')}</title>"
        f'<circle class="dot c0" cx="{frame.x(x):.1f}" cy="{frame.y(y):.1f}" r="3.4"/></g>'
        for x, y in points
    ]
    line = f'<path class="best" d="{"".join(path)}{tail}"/>'
    named = f"{'Score' if shares else 'Loss'} against {unit}, from {said(points[0][1])} to {said(points[-1][1])}."
    parts = [*_axes(frame, ticks, x_ticks, unit, said), *_levels(levels, frame), line, *marks]
    return _svg("curve", width, height, named, parts)


def intervals(spans: Sequence[Span], *, unit: str, width: int = 720, label: int = 220) -> Markup:
    """Values with their intervals, one below the other, around a line at zero.

    Args:
        spans: the rows, first on top; those that are not `strong` are drawn faint.
        unit: of the values.
        label: how much of the width the names take.
    """
    if not spans:
        return Markup("")
    ticks = nice_ticks(min(0.0, *(span.low for span in spans)), max(0.0, *(span.high for span in spans)), 6)
    bottom = 8 + 22.0 * len(spans)
    frame = _Frame(label, 8, width - 14, bottom, ticks[-1], 0, 1, ticks[0])
    parts = []
    for tick in ticks:
        kind = "zero" if tick == 0 else "grid"
        x = frame.x(tick)
        parts.append(f'<line class="{kind}" x1="{x:.1f}" x2="{x:.1f}" y1="8" y2="{bottom:g}"/>')
        parts.append(_text(x, bottom + 15, f"{tick:+g}".replace("-", "−") if tick else "0", "tick middle"))
    for row, span in enumerate(spans):
        y = 8 + 22 * row + 11
        low, high, middle = frame.x(span.low), frame.x(span.high), frame.x(span.value)
        faint = "" if span.strong else " faint"
        told = f"{span.label}: {span.value:+.2f} {unit}, {span.low:+.2f} to {span.high:+.2f}".replace("-", "−")
        name = _text(label - 8, y + 4, _short(span.label, 34), "tick end")
        parts.append(
            f'<g class="span{faint}"><title>{escape(told)}</title>{name}'
            f'<path class="whisker" d="M{low:.1f},{y}H{high:.1f}M{low:.1f},{y - 4}v8M{high:.1f},{y - 4}v8"/>'
            f'<circle class="dot c0" cx="{middle:.1f}" cy="{y}" r="4"/></g>'
        )
    parts.append(_text(width - 14, bottom + 30, unit, "tick end"))
    return _svg("intervals", width, math.ceil(bottom + 36), f"{len(spans)} values with intervals, in {unit}.", parts)


def bars(
    rows: Sequence[tuple[str, float]], *, line: float | None = None, said: str, width: int = 720, label: int = 260
) -> Markup:
    """Shares as bars, with a dashed line at what nothing would get."""
    if not rows:
        return Markup("")
    most = max(max(share for _, share in rows), line or 0.0, 1e-9)
    right, bottom, parts = width - 58.0, 4 + 21.0 * len(rows), []
    for place, (name, share) in enumerate(rows):
        y, length = 4 + 21 * place, (right - label) * share / most
        title, shown = escape(f"{name}: {percent(share)}"), _text(label - 8, y + 14, _short(name, 40), "tick end")
        parts.append(
            f"<g><title>{title}</title>{shown}"
            f'<rect class="c0" x="{label}" y="{y + 3}" width="{max(length, 0.5):.1f}" height="14" rx="2"/>'
            f"{_text(label + length + 6, y + 14, percent(share), 'tick')}</g>"
        )
    if line is not None:
        x = label + (right - label) * line / most
        parts.append(f'<line class="level" x1="{x:.1f}" x2="{x:.1f}" y1="2" y2="{bottom:g}"/>')
    return _svg("bars", width, math.ceil(bottom + 4), said, parts)


def scatter(
    points: Sequence[tuple[float, float, bool]],
    *,
    low: float,
    high: float,
    names: Sequence[str] = (),
    log: bool = False,
    title: str,
    width: int = 300,
    height: int = 190,
) -> Markup:
    """A slice: values of one parameter against the score; stopped candidates are faint.

    Args:
        points: (value, score, whether scored in full); for a choice the value is its place in `names`.
        low, high: the search interval.
        names: the choices, if it is one.
        log: whether the axis is logarithmic.
    """
    if not points:
        return Markup("")
    scores = [score for _, score, _ in points]
    ticks = nice_ticks(min(scores), max(scores), 4)
    place = math.log10 if log else float
    left, right = place(low), place(high)
    if right <= left:
        right = left + 1.0
    frame = _Frame(46, 22, width - 10, height - 22, right, ticks[0], ticks[-1], left)
    parts = [_text(8, 13, _short(title, 44), "tick strong")]
    for tick in ticks:
        y = frame.y(tick)
        parts.append(f'<line class="grid" x1="{frame.left:g}" x2="{frame.right:g}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(_text(frame.left - 6, y + 4, percent(tick, ticks[1] - ticks[0]), "tick end"))
    ends = [(left, f"{low:g}", "tick"), (right, f"{high:g}", "tick end")]
    if names:
        ends = [(float(spot), _short(name, max(4, 30 // len(names))), "tick middle") for spot, name in enumerate(names)]
    parts += [_text(frame.x(spot), frame.bottom + 15, text, kind) for spot, text, kind in ends]
    for value, score, whole in sorted(points, key=lambda point: point[2]):
        kind = f"dot c0{'' if whole else ' faint'}"
        parts.append(f'<circle class="{kind}" cx="{frame.x(place(value)):.1f}" cy="{frame.y(score):.1f}" r="3"/>')
    said = f"{title}: {len(points)} values against the score."
    return _svg("scatter", width, height, said, parts)


def layout(slots: Sequence[Slot], *, width: int = 320) -> Markup:
    """A candidate's stack: a row per output layer, coloured by the sources it is made of, first layer on top."""
    if not slots:
        return Markup("")
    row = max(7.0, min(17.0, 620 / len(slots)))
    left, right = 46.0, width - 4.0
    parts, top = [], 4.0
    for slot in slots:
        parts.append(_slot(slot, left, right, top, row))
        top += row
    named = f"Layer layout of {len(slots)} rows, input on top."
    return _svg("layout", width, math.ceil(top + 4), named, parts)


def nice_ticks(low: float, high: float, wanted: int) -> list[float]:
    """Round numbers that enclose [low, high], about `wanted` of them, 1, 2 or 5 times a power of ten apart."""
    span = high - low or abs(high) * 0.1 or 1.0
    raw = span / max(1, wanted - 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    last = max(last, first + 1)
    return [round(step * k, 12) for k in range(first, last + 1)]


def percent(value: float, step: float = 0.001) -> str:
    """A share as a percentage, with as many decimals as a step asks for."""
    decimals = max(0, -math.floor(math.log10(step * 100) + 1e-9))
    return f"{value * 100:.{decimals}f} %"


def _plain(value: float, step: float = 0.0) -> str:
    """A number of any size, short."""
    return f"{value:.4g}"


def _svg(kind: str, width: float, height: float, said: str, parts: Sequence[str]) -> Markup:
    return Markup(
        f'<svg class="picture {kind}" viewBox="0 0 {width:g} {height:g}" role="img" '
        f'aria-label="{escape(said)}">{"".join(parts)}</svg>'
    )


def _axes(
    frame: _Frame,
    ticks: Sequence[float],
    x_ticks: Sequence[float],
    unit: str = "trial number",
    said: Callable[[float, float], str] = percent,
) -> list[str]:
    step = ticks[1] - ticks[0]
    parts = []
    for tick in ticks:
        y = frame.y(tick)
        parts.append(f'<line class="grid" x1="{frame.left:g}" x2="{frame.right:g}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(_text(frame.left - 6, y + 4, said(tick, step), "tick end"))
    long = max(x_ticks, default=0.0) >= 10_000
    for tick in x_ticks:
        x, shown = frame.x(tick), f"{tick:,.6g}".replace(",", "\u202f") if long else f"{tick:g}"
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{frame.bottom:g}" y2="{frame.bottom + 4:g}"/>')
        parts.append(_text(x, frame.bottom + 16, shown, "tick middle"))
    parts.append(_text(frame.right, frame.bottom + 30, unit, "tick end"))
    return parts


def _levels(levels: Sequence[Level], frame: _Frame) -> list[str]:
    """Dashed lines; their labels are pushed apart so that equal parents stay readable."""
    parts, floor = [], frame.top
    for level in sorted(levels, key=lambda level: -level.score):
        y = frame.y(level.score)
        label_y = max(y, floor)
        floor = label_y + 13
        title = f"{level.label}: {percent(level.score)}"
        parts.append(
            f'<g><title>{escape(title)}</title><line class="level" x1="{frame.left:g}" x2="{frame.right:g}" '
            f'y1="{y:.1f}" y2="{y:.1f}"/>{_text(frame.right + 6, label_y + 4, _short(level.label, 13), "tick")}</g>'
        )
    return parts


def _best_line(dots: Sequence[Dot], frame: _Frame) -> str:
    best = -math.inf
    path: list[str] = []
    counted = sorted((dot for dot in dots if not dot.faint), key=lambda dot: dot.number)
    for dot in counted:
        if dot.score > best:
            best = dot.score
            path.append(f"{'H' if path else 'M'}{frame.x(dot.number):.1f}")
            path.append(f"{'V' if len(path) > 1 else ','}{frame.y(best):.1f}")
    if not path:
        return ""
    return f'<path class="best" d="{"".join(path)}H{frame.x(max(dot.number for dot in dots)):.1f}"/>'


def _dot(dot: Dot, frame: _Frame, radius: float) -> str:
    x, y = frame.x(dot.number), frame.y(dot.score)
    kind = f'class="dot c{dot.series % SERIES}{" faint" if dot.faint else ""}"'
    if dot.square:
        half, side = radius * 0.9, f"{radius * 1.8:.1f}"
        mark = f'<rect {kind} x="{x - half:.1f}" y="{y - half:.1f}" width="{side}" height="{side}" rx="1"/>'
    else:
        mark = f'<circle {kind} cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}"/>'
    whisker = ""
    if dot.stderr:
        low, high = frame.y(dot.score - dot.stderr), frame.y(dot.score + dot.stderr)
        ends = "".join(f"M{x - 4:.1f},{end:.1f}h8" for end in (low, high))
        whisker = f'<path class="whisker" d="M{x:.1f},{low:.1f}V{high:.1f}{ends}"/>'
    return f"<g><title>{escape(dot.title)}</title>{whisker}{mark}</g>"


def _slot(slot: Slot, left: float, right: float, top: float, row: float) -> str:
    """One row: the slot's name, then a bar cut by shares."""
    height, x, parts = row - (2 if row > 9 else 1), left, []
    if row > 9:
        parts.append(_text(left - 6, top + row / 2 + 3, slot.label, "tick end"))
    for series, share, text, title in slot.parts:
        width = (right - left) * share
        inner = ""
        if text and row > 9 and width > 9 * len(text) * 0.62 + 8:
            inner = _text(x + width / 2, top + row / 2 + 3, text, "on middle")
        parts.append(
            f'<g><title>{escape(title)}</title><rect class="s{series % SERIES}" x="{x:.1f}" y="{top:.1f}" '
            f'width="{max(0.0, width - 1):.1f}" height="{height:.1f}" rx="2"/>{inner}</g>'
        )
        x += width
    return "".join(parts)


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
