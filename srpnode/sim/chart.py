"""Line charts as SVG, written by hand: a title, two axes, lines with bands, a legend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 720, 400
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 40, 48
COLORS = ("#1b6ca8", "#c0392b", "#2e8b57", "#8e6bbf", "#b8860b")


@dataclass(frozen=True)
class Line:
    """Points (x, y), perhaps with a band of (x, low, high) around them."""

    label: str
    points: Sequence[tuple[float, float]]
    band: Sequence[tuple[float, float, float]] = ()
    dashed: bool = False


@dataclass(frozen=True)
class Chart:
    """One chart; the axes reach from their minimum to their maximum."""

    title: str
    x_label: str
    y_label: str
    x_range: tuple[float, float]
    y_range: tuple[float, float]
    lines: Sequence[Line]


def ticks(low: float, high: float, count: int = 6) -> list[float]:
    """Round numbers between two."""
    span = (high - low) / count or 1.0
    power = 10.0 ** len(str(int(1 / span))) if span < 1 else 10.0 ** (len(str(int(span))) - 1)
    unit = 1 / power if span < 1 else power
    step = next(unit * factor for factor in (1, 2, 5, 10, 20, 50, 100) if unit * factor >= span)
    first = int(low / step)
    return [i * step for i in range(first, first + 2 * count + 2) if low <= i * step <= high + step / 1e6]


def svg(charts: Sequence[Chart]) -> str:
    """The charts, one below the other."""
    body = [_chart(chart, HEIGHT * i) for i, chart in enumerate(charts)]
    height = HEIGHT * len(charts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
        f'font-family="sans-serif" font-size="12">\n<rect width="{WIDTH}" height="{height}" fill="white"/>\n'
        + "".join(body)
        + "</svg>\n"
    )


def _chart(chart: Chart, offset: int) -> str:
    (x_low, x_high), (y_low, y_high) = chart.x_range, chart.y_range

    def x(value: float) -> float:
        part = (min(max(value, x_low), x_high) - x_low) / ((x_high - x_low) or 1)
        return round(LEFT + part * (WIDTH - LEFT - RIGHT), 1)

    def y(value: float) -> float:
        part = (min(max(value, y_low), y_high) - y_low) / ((y_high - y_low) or 1)
        return round(offset + HEIGHT - BOTTOM - part * (HEIGHT - TOP - BOTTOM), 1)

    out = [f'<text x="{LEFT}" y="{offset + 22}" font-size="15">{escape(chart.title)}</text>\n']
    for value in ticks(x_low, x_high):
        out.append(f'<path d="M{x(value)} {y(y_low)}V{y(y_high)}" stroke="#e4e4e4"/>\n')
        out.append(f'<text x="{x(value)}" y="{y(y_low) + 16}" text-anchor="middle">{value:g}</text>\n')
    for value in ticks(y_low, y_high):
        out.append(f'<path d="M{x(x_low)} {y(value)}H{x(x_high)}" stroke="#e4e4e4"/>\n')
        out.append(f'<text x="{LEFT - 6}" y="{y(value) + 4}" text-anchor="end">{value:g}</text>\n')
    center = (LEFT + WIDTH) // 2
    out.append(f'<text x="{center}" y="{offset + HEIGHT - 10}" text-anchor="middle">{escape(chart.x_label)}</text>\n')
    middle = offset + (HEIGHT + TOP - BOTTOM) // 2
    out.append(f'<text transform="translate(14 {middle}) rotate(-90)" text-anchor="middle">{escape(chart.y_label)}</text>\n')
    for i, line in enumerate(chart.lines):
        color = COLORS[i % len(COLORS)]
        if line.band:
            edge = [f"{x(a)} {y(high)}" for a, _, high in line.band] + [f"{x(a)} {y(low)}" for a, low, _ in reversed(line.band)]
            out.append(f'<path d="M{" L".join(edge)}Z" fill="{color}" fill-opacity="0.2"/>\n')
        dash = ' stroke-dasharray="4 3"' if line.dashed else ""
        points = " L".join(f"{x(a)} {y(b)}" for a, b in line.points if x_low <= a <= x_high)
        if points:
            out.append(f'<path d="M{points}" fill="none" stroke="{color}" stroke-width="1.6"{dash}/>\n')
        row = offset + TOP + 14 + 16 * i
        out.append(f'<path d="M{WIDTH - 230} {row - 4}h24" stroke="{color}" stroke-width="2"{dash}/>\n')
        out.append(f'<text x="{WIDTH - 200}" y="{row}">{escape(line.label)}</text>\n')
    return "".join(out)
