"""Plots as SVG: a few KB each, the same bytes for the same numbers, legible in light and dark.

Written by hand, because what we need is two kinds of line chart; the plotting libraries bring a
hundred times that, and output that differs between their versions (docs/dependencies.md). Colours
follow the reader's preference through a media query inside the file, and the background is part of
the picture: it stays legible on a page of the other mode.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from bench.results import Plot

WIDTH, HEIGHT = 720, 360
LEFT, RIGHT, TOP, BOTTOM = 72, 16, 44, 84
TICKS = 5
LABELS = {"rate": "documents per second", "limit": "requests in flight; milliseconds"}
DASHES = ("", "7 4", "2 3", "10 3 2 3")
"""Lines differ without colours, too."""

SVG = (
    f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img"'
    ' aria-label="{title}">'
)
STYLE = """
text{font:12px system-ui,sans-serif;fill:#24292f}
.title{font-size:14px;font-weight:600}
.back{fill:#ffffff}.grid{stroke:#d0d7de;stroke-width:1}
.line{fill:none;stroke-width:2;stroke-linejoin:round}
.c0{stroke:#0550ae}.c1{stroke:#bc4c00}.c2{stroke:#1a7f37}.c3{stroke:#8250df}
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.back{fill:#0d1117}.grid{stroke:#30363d}
.c0{stroke:#79c0ff}.c1{stroke:#ffa657}.c2{stroke:#56d364}.c3{stroke:#d2a8ff}}
""".replace("\n", "")


@dataclass(frozen=True, slots=True)
class Axis:
    """Turns values into coordinates.

    Attributes:
        ticks: (value as it lies on the axis, label).
    """

    low: float
    high: float
    start: float
    end: float
    ticks: Sequence[tuple[float, str]]

    def at(self, value: float) -> float:
        """Return where a value lies."""
        share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)


def render(plot: Plot) -> str:
    """Return a plot as SVG."""
    to_x, to_y = (_tail, math.log10) if plot.kind == "latency" else (_same, _same)
    lines = [
        (line.name, [(to_x(x), to_y(y)) for x, y in line.points if plot.kind != "latency" or y > 0])
        for line in plot.lines
    ]
    lines = [(name, points) for name, points in lines if points]
    xs = [x for _, points in lines for x, _ in points] or [0.0, 1.0]
    ys = [y for _, points in lines for _, y in points] or [0.0, 1.0]
    if plot.kind == "latency":
        x_axis, y_axis = _percentile_axis(max(xs)), _log_axis(min(ys), max(ys))
        labels = "percentile", "milliseconds (logarithmic)"
    else:
        x_axis, y_axis = _linear_axis(max(xs), LEFT, WIDTH - RIGHT), _rate_axis(max(ys))
        labels = "seconds", LABELS[plot.kind]
    parts = [
        SVG.format(title=escape(plot.title)),
        f"<style>{STYLE}</style>",
        f'<rect class="back" width="{WIDTH}" height="{HEIGHT}"/>',
        f'<text class="title" x="{LEFT}" y="22">{escape(plot.title)}</text>',
        *_axes(x_axis, y_axis, *labels),
    ]
    for number, (name, points) in enumerate(lines):
        parts += _line(number, name, [(x_axis.at(x), y_axis.at(y)) for x, y in points])
    return "\n".join([*parts, "</svg>", ""])


def _axes(x_axis: Axis, y_axis: Axis, x_label: str, y_label: str) -> list[str]:
    bottom = HEIGHT - BOTTOM
    parts = [f'<text x="{LEFT}" y="38" opacity=".8">{y_label}</text>']
    for value, label in y_axis.ticks:
        y = _number(y_axis.at(value))
        parts.append(f'<path class="grid" d="M{LEFT} {y}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y}" dy="4" text-anchor="end">{label}</text>')
    for value, label in x_axis.ticks:
        x = _number(x_axis.at(value))
        parts.append(f'<path class="grid" d="M{x} {bottom}v4"/>')
        parts.append(f'<text x="{x}" y="{bottom + 18}" text-anchor="middle">{label}</text>')
    place = f'x="{WIDTH - RIGHT}" y="{bottom + 36}" text-anchor="end"'
    return [*parts, f'<text {place} opacity=".8">{x_label}</text>']


def _line(number: int, name: str, points: Sequence[tuple[float, float]]) -> list[str]:
    """Draw a line, and its entry in the legend below."""
    path = "L".join(f"{_number(x)} {_number(y)}" for x, y in points)
    dash = f' stroke-dasharray="{DASHES[number % 4]}"' if number % 4 else ""
    look = f'class="line c{number % 4}"{dash}'
    x = LEFT + (number % 2) * (WIDTH - LEFT - RIGHT) // 2
    y = HEIGHT - 30 + number // 2 * 18
    return [
        f'<path {look} d="M{path}"/>',
        f'<path {look} d="M{x} {y - 4}h26"/>',
        f'<text x="{x + 34}" y="{y}">{escape(name)}</text>',
    ]


def _same(value: float) -> float:
    return value


def _tail(percentile: float) -> float:
    """Stretch the end of the scale: 90, 99 and 99.9 % lie equally far apart."""
    return -math.log10(max(1e-4, 1 - percentile / 100))


def _percentile_axis(high: float) -> Axis:
    shown = [(_tail(one), f"{one:g}") for one in (0, 50, 90, 95, 99, 99.9) if _tail(one) <= high]
    ticks = [*shown, (high, "max")] if high > _tail(99.95) else shown
    return Axis(0, high or 1, LEFT, WIDTH - RIGHT, ticks)


def _log_axis(low: float, high: float) -> Axis:
    first, last = math.floor(low), max(math.ceil(high), math.floor(low) + 1)
    ticks = [(float(power), f"{10.0**power:g}") for power in range(first, last + 1)]
    return Axis(first, last, HEIGHT - BOTTOM, TOP, ticks)


def _rate_axis(high: float) -> Axis:
    return _linear_axis(high, HEIGHT - BOTTOM, TOP)


def _linear_axis(high: float, start: float, end: float) -> Axis:
    """Return an axis from 0 with round ticks."""
    raw = (high or 1) / TICKS
    power = 10 ** math.floor(math.log10(raw))
    step = next(one * power for one in (1, 2, 2.5, 5, 10) if one * power >= raw)
    count = math.ceil((high or 1) / step)
    ticks = [(number * step, f"{number * step:,g}") for number in range(count + 1)]
    return Axis(0, count * step, start, end, ticks)


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
