"""The picture of a campaign: for each fault, how long the service took to answer again each time. SVG, by hand."""

import math
from collections.abc import Mapping, Sequence
from html import escape

LEFT, TOP, ROW, PLOT = 270, 44, 20, 520
DECADES = (-2, -1, 0, 1, 2)  # 10 ms to 100 s
STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#222}.title{font-weight:600;font-size:14px}"
    ".axis{fill:#555;font-size:11px}.grid{stroke:#ddd}.frame{fill:none;stroke:#999}"
)


def svg(times: Mapping[str, Sequence[float]]) -> str:
    """One row a fault, one dot a time (seconds, logarithmic), the median as a bar."""
    rows = sorted(times.items(), key=lambda item: -_median(item[1]))
    bottom = TOP + ROW * len(rows)
    width, height = LEFT + PLOT + 30, bottom + 30
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        'aria-label="Seconds until the service answers again, by fault">',
        f'<style>{STYLE}</style><rect width="{width}" height="{height}" fill="#fff"/>',
        f'<text class="title" x="{LEFT}" y="22">Until the service answers again</text>',
    ]
    for decade in DECADES:
        at = _x(10.0**decade)
        parts.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{bottom}"/>')
        parts.append(
            f'<text class="axis" x="{at:.1f}" y="{bottom + 16}" text-anchor="middle">{10.0**decade:g} s</text>'
        )
    for number, (name, seconds) in enumerate(rows):
        y = TOP + ROW * number + ROW / 2
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{escape(name)}</text>')
        middle = _x(_median(seconds))
        parts.append(f'<path d="M{middle:.1f} {y - 7:.1f}v14" stroke="#c4572b" stroke-width="2.5"/>')
        parts += [
            f'<circle cx="{_x(one):.1f}" cy="{y:.1f}" r="4" fill="#0b6e99" fill-opacity="0.6"/>' for one in seconds
        ]
    parts.append(f'<rect class="frame" x="{LEFT}" y="{TOP}" width="{PLOT}" height="{bottom - TOP}"/></svg>')
    return "\n".join(parts) + "\n"


def _x(seconds: float) -> float:
    low, high = DECADES[0], DECADES[-1]
    exponent = min(max(math.log10(max(seconds, 1e-9)), low), high)
    return LEFT + (exponent - low) / (high - low) * PLOT


def _median(seconds: Sequence[float]) -> float:
    ordered = sorted(seconds)
    return ordered[len(ordered) // 2]
