"""Every picture of pages and reports, drawn on the server as SVG.

Colours come from CSS classes (`c0` ... `c7` for series, see `static/style.css`), never from inline styles, so pictures
follow the reader's dark or light mode and pass a strict content security policy. All text is escaped.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
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
class _Frame:
    """A plot's rectangle and its scales."""

    left: float
    top: float
    right: float
    bottom: float
    x_high: float
    y_low: float
    y_high: float

    def x(self, value: float) -> float:
        return self.left + (self.right - self.left) * value / self.x_high

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


def _svg(kind: str, width: float, height: float, said: str, parts: Sequence[str]) -> Markup:
    return Markup(
        f'<svg class="picture {kind}" viewBox="0 0 {width:g} {height:g}" role="img" '
        f'aria-label="{escape(said)}">{"".join(parts)}</svg>'
    )


def _axes(frame: _Frame, ticks: Sequence[float], x_ticks: Sequence[float]) -> list[str]:
    step = ticks[1] - ticks[0]
    parts = []
    for tick in ticks:
        y = frame.y(tick)
        parts.append(f'<line class="grid" x1="{frame.left:g}" x2="{frame.right:g}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(_text(frame.left - 6, y + 4, percent(tick, step), "tick end"))
    for tick in x_ticks:
        x = frame.x(tick)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{frame.bottom:g}" y2="{frame.bottom + 4:g}"/>')
        parts.append(_text(x, frame.bottom + 16, f"{tick:g}", "tick middle"))
    parts.append(_text(frame.right, frame.bottom + 30, "trial number", "tick end"))
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
