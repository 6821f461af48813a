"""Strong calls against performance, as SVG written by hand: the scorer, length alone, chance, and an oracle."""

from collections.abc import Mapping
from html import escape

import numpy as np
from numpy.typing import NDArray

from benchmarks.routing.data import Examples
from benchmarks.routing.measure import quality, recovered

WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 560, 380, 62, 44, 20, 52
PLOT_WIDTH, PLOT_HEIGHT = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
COLORS = ("#0b6e99", "#c4572b")
POINTS = 200
STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#222}.title{font-weight:600;font-size:14px}"
    ".axis{fill:#555;font-size:11px}.grid{stroke:#ddd}.frame{fill:none;stroke:#999}polyline{fill:none;stroke-width:2}"
)
Curve = NDArray[np.float64]


def svg(title: str, scores: Mapping[str, NDArray[np.floating]], examples: Examples) -> str:
    """Share of correct answers upwards, share of strong calls to the right."""
    cheap, strong = examples.cheap, examples.strong
    low, gap = float(cheap.mean()), float(strong.mean() - cheap.mean())
    curves = {
        f"{name} (APGR {quality(values, cheap, strong).apgr:.3f})": low + gap * recovered(values, cheap, strong)
        for name, values in scores.items()
    }
    oracle = low + gap * recovered(strong - cheap, cheap, strong)
    chance = np.linspace(low, low + gap, len(oracle))
    floor, ceiling = np.floor(20 * low) / 20, np.ceil(20 * oracle.max()) / 20
    lines = [_axes(title, floor, ceiling), _line(oracle, "#6b7f2a", floor, ceiling, "2 3")]
    lines.append(_line(chance, "#888", floor, ceiling, "6 4"))
    colored = dict(zip(curves, COLORS, strict=True))
    lines += [_line(curve, colored[name], floor, ceiling) for name, curve in curves.items()]
    legend = [*colored.items(), ("chance (0.500)", "#888"), ("oracle", "#6b7f2a")]
    for at, (name, color) in enumerate(reversed(legend)):
        top = TOP + PLOT_HEIGHT - 12 - 17 * at
        lines.append(f'<rect x="{LEFT + 250}" y="{top - 5}" width="14" height="3" fill="{color}"/>')
        lines.append(f'<text x="{LEFT + 270}" y="{top}">{escape(name)}</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(title)}: share of strong calls against performance">'
        f'<style>{STYLE}</style><rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>\n'
        + "\n".join(lines)
        + "\n</svg>\n"
    )


def _axes(title: str, floor: float, ceiling: float) -> str:
    lines = [f'<text class="title" x="{LEFT}" y="22">{escape(title)}: strong calls against performance</text>']
    for value in np.arange(floor, ceiling + 0.001, 0.05):
        y = _y(value, floor, ceiling)
        lines.append(f'<line class="grid" x1="{LEFT}" x2="{LEFT + PLOT_WIDTH}" y1="{y:.1f}" y2="{y:.1f}"/>')
        lines.append(f'<text class="axis" x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{100 * value:.0f} %</text>')
    for share in (0, 20, 40, 60, 80, 100):
        x = LEFT + PLOT_WIDTH * share / 100
        lines.append(
            f'<text class="axis" x="{x:.1f}" y="{TOP + PLOT_HEIGHT + 16}" text-anchor="middle">{share} %</text>'
        )
    lines.append(f'<rect class="frame" x="{LEFT}" y="{TOP}" width="{PLOT_WIDTH}" height="{PLOT_HEIGHT}"/>')
    lines.append(f'<text class="axis" x="{LEFT}" y="{TOP - 8}">answers that are right</text>')
    right, below = LEFT + PLOT_WIDTH, TOP + PLOT_HEIGHT + 36
    lines.append(f'<text class="axis" x="{right}" y="{below}" text-anchor="end">calls of the strong model</text>')
    return "\n".join(lines)


def _line(curve: Curve, color: str, floor: float, ceiling: float, dashes: str = "") -> str:
    at = np.round(np.linspace(0, len(curve) - 1, POINTS)).astype(int)
    points = " ".join(
        f"{LEFT + PLOT_WIDTH * i / (len(curve) - 1):.1f},{_y(float(curve[i]), floor, ceiling):.1f}" for i in at
    )
    dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
    return f'<polyline stroke="{color}"{dashed} points="{points}"/>'


def _y(value: float, floor: float, ceiling: float) -> float:
    return TOP + PLOT_HEIGHT * (1 - (value - floor) / (ceiling - floor))
