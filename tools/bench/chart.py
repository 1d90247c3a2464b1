"""Bar and line charts as SVG text, for the pages in docs/.

Written by hand: a plotting library would be the largest dependency of the benchmarks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

_COLORS = ("#2f6fb5", "#d9822b", "#5a9a5a", "#8a63a8", "#b0485a", "#3aa0a0")
_WIDTH, _HEIGHT = 640, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 16, 72, 30
_PLOT_HEIGHT = _HEIGHT - _TOP - _BOTTOM


def bar_chart(title: str, subtitle: str, series: Mapping[str, Sequence[float]], labels: Sequence[str] = ()) -> str:
    """Draw the bars of each series side by side, in groups called ``labels`` or numbered from 1.

    ``series``: name to heights, all of one length, none negative.
    """
    groups = len(next(iter(series.values())))
    top = _round_up(max(value for values in series.values() for value in values))
    pitch = (_WIDTH - _LEFT - _RIGHT) / groups
    bar = pitch * 0.8 / len(series)
    parts = _frame(title, subtitle, top)
    for place, (name, values) in enumerate(series.items()):
        parts += _key(place, name, len(series))
        for group, value in enumerate(values):
            height = _PLOT_HEIGHT * value / top
            x, y = _LEFT + pitch * (group + 0.1) + bar * place, _HEIGHT - _BOTTOM - height
            parts.append(
                f'<rect x="{x:.1f}" y="{y:.1f}" width="{bar:.1f}" height="{height:.1f}" fill="{_color(place)}"/>'
            )
    names = labels or [str(group + 1) for group in range(groups)]
    size = 12 if groups * max(map(len, names)) < 80 else 9
    parts += [
        _text(_LEFT + pitch * (at + 0.5), _HEIGHT - 12, name, anchor="middle", size=size)
        for at, name in enumerate(names)
    ]
    return "\n".join([*parts, "</svg>", ""])


def line_chart(title: str, subtitle: str, series: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """Draw a line for each series of (x, y), none negative; both axes begin at 0."""
    points = [point for line in series.values() for point in line]
    right, top = (_round_up(max((point[axis] for point in points), default=1)) for axis in (0, 1))
    width = _WIDTH - _LEFT - _RIGHT
    parts = _frame(title, subtitle, top)
    parts += [
        _text(_LEFT + width * step / 4, _HEIGHT - 12, f"{right * step / 4:g}", anchor="end" if step == 4 else "middle")
        for step in range(5)
    ]
    for place, (name, line) in enumerate(series.items()):
        drawn = " ".join(
            f"{_LEFT + width * x / right:.1f},{_HEIGHT - _BOTTOM - _PLOT_HEIGHT * y / top:.1f}" for x, y in line
        )
        parts += [
            *_key(place, name, len(series)),
            f'<polyline points="{drawn}" fill="none" stroke="{_color(place)}" stroke-width="2"/>',
        ]
    return "\n".join([*parts, "</svg>", ""])


def _frame(title: str, subtitle: str, top: float) -> list[str]:
    """Return the opening of the SVG: its titles, and the y axis from 0 to ``top``."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}" '
        'font-family="sans-serif" font-size="12" fill="#333">',
        '<rect width="100%" height="100%" fill="#fff"/>',
        _text(_LEFT, 22, title, size=15),
        _text(_LEFT, 40, subtitle),
    ]
    for step in range(5):
        value, y = top * step / 4, _HEIGHT - _BOTTOM - _PLOT_HEIGHT * step / 4
        parts += [
            f'<path d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}" stroke="#ddd"/>',
            _text(_LEFT - 6, y + 4, f"{value:g}", anchor="end"),
        ]
    return parts


def _key(place: int, name: str, of: int) -> list[str]:
    """Return the legend of the ``place``-th of ``of`` colours."""
    x = _LEFT + place * min(110, (_WIDTH - _LEFT) // of)
    return [f'<rect x="{x}" y="50" width="10" height="10" fill="{_color(place)}"/>', _text(x + 16, 59, name)]


def _color(place: int) -> str:
    return _COLORS[place % len(_COLORS)]


def _text(x: float, y: float, text: str, *, anchor: str = "start", size: int = 12) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">{escape(text)}</text>'


def _round_up(value: float) -> float:
    """Return the least of 1, 2, 4, 6, 8, 10 times a power of ten that is not below ``value``."""
    power = 1.0
    while power * 10 < value:
        power *= 10
    while 0 < value <= power / 10:
        power /= 10
    return next(power * factor for factor in (1, 2, 4, 6, 8, 10) if power * factor >= value)
