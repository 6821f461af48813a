"""The picture of cost against waiting: one panel a kind, one mark a variant and trace, written as SVG by hand."""

import math
from collections.abc import Sequence
from html import escape

from benchmarks.autoscaling.results import Result
from benchmarks.autoscaling.variants import DEFAULT

WIDTH, HEIGHT, LEFT, TOP = 470, 300, 64, 44
PLOT_WIDTH, PLOT_HEIGHT = WIDTH - LEFT - 24, HEIGHT - TOP - 62
COLORS = ("#0b6e99", "#c4572b", "#6b7f2a")
FLOOR = 0.001  # seconds: what waited less is drawn here
STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#222}.title{font-weight:600;font-size:14px}"
    ".axis{fill:#555;font-size:11px}.grid{stroke:#ddd}.frame{fill:none;stroke:#999}"
)


def svg(found: Sequence[Result]) -> str:
    """Two panels a row; waiting (95 of 100 requests waited less, logarithmic) upwards, cost to the right."""
    kinds = list(dict.fromkeys(one.kind for one in found))
    rows = math.ceil(len(kinds) / 2)
    width, height = 2 * WIDTH, rows * (HEIGHT + 48) + 34
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="Cost against waiting time for each way of scaling">',
        f'<style>{STYLE}</style><rect width="{width}" height="{height}" fill="#fff"/>',
    ]
    for at, kind in enumerate(kinds):
        panel = _panel([one for one in found if one.kind == kind])
        parts.append(f'<g transform="translate({at % 2 * WIDTH},{at // 2 * (HEIGHT + 48)})">{panel}</g>')
    parts.append(
        f'<g transform="translate({LEFT},{height - 16})">{_mark("conversations", 6, -4, "#555")}'
        f'<text x="18">conversations</text>{_mark("code", 126, -4, "#555")}'
        '<text x="138">code (long prompts, bursts and silences)</text></g></svg>'
    )
    return "\n".join(parts) + "\n"


def _panel(group: Sequence[Result]) -> str:
    variants = list(dict.fromkeys(one.variant for one in group))
    color = dict(zip(variants, COLORS, strict=False))
    most = _round_up(max(one.usd for one in group))
    decades = range(-3, max(1, math.ceil(math.log10(max(one.wait_p95_s for one in group) or 1))) + 1)

    def x(usd: float) -> float:
        return LEFT + usd / most * PLOT_WIDTH

    def y(wait: float) -> float:
        share = (math.log10(max(wait, FLOOR)) - decades[0]) / (decades[-1] - decades[0])
        return TOP + (1 - share) * PLOT_HEIGHT

    lines = [f'<text class="title" x="{LEFT}" y="22">{escape(group[0].kind)}</text>']
    for decade in decades:
        at = y(10.0**decade)
        lines.append(f'<line class="grid" x1="{LEFT}" x2="{LEFT + PLOT_WIDTH}" y1="{at:.1f}" y2="{at:.1f}"/>')
        lines.append(f'<text class="axis" x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{10.0**decade:g} s</text>')
    for step in range(5):
        usd = most * step / 4
        lines.append(
            f'<text class="axis" x="{x(usd):.1f}" y="{TOP + PLOT_HEIGHT + 16}" text-anchor="middle">{usd:.3g}</text>'
        )
    lines.append(f'<rect class="frame" x="{LEFT}" y="{TOP}" width="{PLOT_WIDTH}" height="{PLOT_HEIGHT}"/>')
    lines.append(f'<text class="axis" x="{LEFT}" y="{TOP - 8}">wait, p95</text>')
    lines.append(
        f'<text class="axis" x="{LEFT + PLOT_WIDTH}" y="{TOP + PLOT_HEIGHT + 30}" text-anchor="end">USD</text>'
    )
    lines += [_mark(one.trace, x(one.usd), y(one.wait_p95_s), color[one.variant]) for one in group]
    for at, variant in enumerate(variants):
        weight = ' font-weight="600"' if variant == DEFAULT else ""
        top = TOP + PLOT_HEIGHT + 34 + 16 * at
        lines.append(f'<rect x="{LEFT}" y="{top - 9}" width="10" height="10" fill="{color[variant]}"/>')
        lines.append(f'<text x="{LEFT + 16}" y="{top}"{weight}>{escape(variant)}</text>')
    return "\n".join(lines)


def _mark(trace: str, x: float, y: float, color: str) -> str:
    if trace == "code":
        return f'<path d="M{x:.1f} {y - 6:.1f}l6 10h-12z" fill="{color}" fill-opacity="0.85"/>'
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5.5" fill="{color}" fill-opacity="0.85"/>'


def _round_up(value: float) -> float:
    """A little more than `value`, to two digits of which the axis has quarters."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return math.ceil(value * 1.05 / (4 * unit)) * 4 * unit
