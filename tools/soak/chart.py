"""The plot of a soak as SVG text: pings, waits and memory over time, with what was done to the service."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape

_WIDTH, _LEFT, _RIGHT, _TOP = 960, 64, 16, 60
_PANEL, _BETWEEN = 130, 40
_STAGE_LINES = 92
"""Pixels for the names of the hostile clients."""
_EVENT_COLORS = {
    "runner killed": "#c9c9c9",
    "gateway killed": "#d9822b",
    "database restarted": "#8a63a8",
    "restart": "#b0485a",
}


@dataclass(frozen=True, slots=True)
class _Panel:
    title: str
    series: Mapping[str, Sequence[Sequence[float]]]
    """Name -> points, (seconds, value)."""


def plot(seen: Mapping[str, Any]) -> str:
    """Draw what ``tools.soak.record.summary`` returns."""
    curves = seen["curves"]
    panels = (
        _Panel("worst ping, ms", {"": curves["ping"]}),
        _Panel("longest wait of a good request, s", {"": curves["wait"]}),
        _Panel("PSS, MB", {"service": curves["service"], "database": curves["database"]}),
    )
    end = max(float(seen["seconds"]), 1.0)
    bottom = _TOP + len(panels) * (_PANEL + _BETWEEN)
    height = bottom + _STAGE_LINES
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" '
        'font-family="sans-serif" font-size="12" fill="#333">',
        '<rect width="100%" height="100%" fill="#fff"/>',
        _text(_LEFT, 20, "Eight good callers beside hostile clients, kills and restarts", size=15),
        *_key(seen["events"]),
    ]
    for place, panel in enumerate(panels):
        top = _TOP + place * (_PANEL + _BETWEEN) + 24
        parts += _marks(seen["events"], end, top)
        parts += _panel(panel, end, top)
    parts += _stages(seen["stages"], end, bottom)
    return "\n".join([*parts, "</svg>", ""])


def _x(seconds: float, end: float) -> float:
    return _LEFT + (_WIDTH - _LEFT - _RIGHT) * min(seconds, end) / end


def _panel(panel: _Panel, end: float, top: float) -> list[str]:
    most = max((value for points in panel.series.values() for _, value in points), default=1) or 1
    parts = [_text(_LEFT, top - 6, panel.title)]
    for step in range(3):
        y = top + _PANEL * (1 - step / 2)
        parts.append(f'<path d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}" stroke="#ddd"/>')
        parts.append(_text(_LEFT - 6, y + 4, f"{most * step / 2:.3g}", anchor="end"))
    for (name, points), color in zip(panel.series.items(), ("#2f6fb5", "#5a9a5a"), strict=False):
        drawn = " ".join(f"{_x(at, end):.1f},{top + _PANEL * (1 - value / most):.1f}" for at, value in points)
        parts.append(f'<polyline points="{drawn}" fill="none" stroke="{color}" stroke-width="1.5"/>')
        if name and points:
            y = top + _PANEL * (1 - points[-1][1] / most)
            parts.append(_text(_WIDTH - _RIGHT - 4, y - 5, name, anchor="end", color=color))
    return parts


def _marks(events: Sequence[Mapping[str, Any]], end: float, top: float) -> list[str]:
    return [
        f'<path d="M{_x(event["at"], end):.1f} {top}v{_PANEL}" stroke="{_EVENT_COLORS[event["what"]]}" '
        'stroke-dasharray="3 2"/>'
        for event in events
    ]


def _key(events: Sequence[Mapping[str, Any]]) -> list[str]:
    parts = []
    for place, (what, color) in enumerate(_EVENT_COLORS.items()):
        x = _LEFT + place * 190
        count = sum(event["what"] == what for event in events)
        parts.append(f'<path d="M{x} 34h14" stroke="{color}" stroke-width="3"/>')
        parts.append(_text(x + 20, 38, f"{what} ({count} times)"))
    return parts


def _stages(stages: Sequence[Mapping[str, Any]], end: float, top: float) -> list[str]:
    parts = []
    for stage in stages:
        left, right = _x(stage["begins"], end), _x(stage["ends"], end)
        parts.append(f'<path d="M{left:.1f} {_TOP + 24}V{top}" stroke="#eee"/>')
        x, y = (left + right) / 2, top + 2
        turned = f'transform="rotate(35 {x:.1f} {y})"'
        parts.append(f'<text x="{x:.1f}" y="{y}" font-size="10" {turned}>{escape(stage["hostile"])}</text>')
    parts.append(_text(_LEFT, top - 14, "0 s"))
    parts.append(_text(_WIDTH - _RIGHT, top - 14, f"{end:g} s", anchor="end"))
    return parts


def _text(x: float, y: float, text: str, *, anchor: str = "start", size: int = 12, color: str = "#333") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="{color}">{escape(text)}</text>'
    )
