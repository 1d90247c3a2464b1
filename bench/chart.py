"""A grouped bar chart as SVG text, for the pages in docs/. Written by hand: a plotting library would weigh more than all the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

_COLORS = ("#2f6fb5", "#d9822b", "#5a9a5a", "#8a63a8")
_WIDTH, _HEIGHT = 640, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 16, 72, 30


def bar_chart(title: str, subtitle: str, series: Mapping[str, Sequence[float]]) -> str:
    """Bars of each series side by side, numbered from 1. ``series``: name -> heights, all of one length, none negative."""
    groups = len(next(iter(series.values())))
    top = _round_up(max(value for values in series.values() for value in values))
    plot_width, plot_height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    pitch = plot_width / groups
    bar = pitch * 0.8 / len(series)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}" '
        'font-family="sans-serif" font-size="12" fill="#333">',
        '<rect width="100%" height="100%" fill="#fff"/>',
        _text(_LEFT, 22, title, size=15),
        _text(_LEFT, 40, subtitle),
    ]
    for step in range(5):
        value, y = top * step / 4, _HEIGHT - _BOTTOM - plot_height * step / 4
        parts += [f'<path d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}" stroke="#ddd"/>', _text(_LEFT - 6, y + 4, f"{value:g}", anchor="end")]
    for place, (name, values) in enumerate(series.items()):
        color = _COLORS[place % len(_COLORS)]
        parts += [
            f'<rect x="{_LEFT + place * 110}" y="50" width="10" height="10" fill="{color}"/>',
            _text(_LEFT + 16 + place * 110, 59, name),
        ]
        for group, value in enumerate(values):
            height = plot_height * value / top
            x, y = _LEFT + pitch * (group + 0.1) + bar * place, _HEIGHT - _BOTTOM - height
            parts.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="{bar:.1f}" height="{height:.1f}" fill="{color}"/>')
    parts += [_text(_LEFT + pitch * (group + 0.5), _HEIGHT - 12, str(group + 1), anchor="middle") for group in range(groups)]
    return "\n".join([*parts, "</svg>", ""])


def _text(x: float, y: float, text: str, *, anchor: str = "start", size: int = 12) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">{escape(text)}</text>'


def _round_up(value: float) -> float:
    """The least of 1, 2, 4, 6, 8, 10 times a power of ten that is not below ``value``."""
    power = 1.0
    while power * 10 < value:
        power *= 10
    return next(power * factor for factor in (1, 2, 4, 6, 8, 10) if power * factor >= value)
