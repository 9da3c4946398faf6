"""The calibration plot, as one SVG file that loads nothing else."""

from collections.abc import Mapping
from xml.sax.saxutils import escape

from serving.monitoring.quality.calibration import Calibration

SIZE, LEFT, TOP = 360, 56, 24
ROW = 22
"""Height of a line of the legend."""

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Told apart by people with colour blindness. Source: Okabe, Ito, Color Universal Design, 2008."""

TICKS = (0, 0.2, 0.4, 0.6, 0.8, 1)

STYLE = (
    "svg{background:#fff;color:#222;font:13px system-ui,sans-serif}text{fill:currentColor}"
    ".line{stroke:currentColor;opacity:.25}.even{stroke-dasharray:5 4;opacity:.6}"
    "@media(prefers-color-scheme:dark){svg{background:#181a1d;color:#ddd}}"
)


def draw_calibration(calibrations: Mapping[str, Calibration]) -> str:
    """Returns the SVG: predicted probability against how often it came true; a larger dot has more rows.

    Args:
        calibrations: by the name of the group.
    """
    named = {calibration.what for calibration in calibrations.values()}
    axis = named.pop() if len(named) == 1 else "predicted probability"
    width, height = LEFT + SIZE + 24, TOP + SIZE + 58 + ROW * len(calibrations)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" aria-label="Calibration"><style>{STYLE}</style>'
    ]
    for tick in TICKS:
        parts += [
            _line(0, tick, 1, tick, "line"),
            _line(tick, 0, tick, 1, "line"),
            f'<text x="{LEFT - 8}" y="{_y(tick) + 4:.0f}" text-anchor="end">{tick:g}</text>',
            f'<text x="{_x(tick):.0f}" y="{TOP + SIZE + 18}" text-anchor="middle">{tick:g}</text>',
        ]
    parts += [
        _line(0, 0, 1, 1, "line even"),
        f'<text x="{_x(0.5):.0f}" y="{TOP + SIZE + 38}" text-anchor="middle">{escape(axis)}</text>',
        f'<text transform="translate(14 {_y(0.5):.0f}) rotate(-90)" text-anchor="middle">share that came true</text>',
    ]
    for position, (name, calibration) in enumerate(calibrations.items()):
        colour = COLOURS[position % len(COLOURS)]
        points = [(_x(part.predicted), _y(part.observed), part) for part in calibration.bins]
        total = sum(part.n_rows for part in calibration.bins)
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{2 + 10 * (part.n_rows / total) ** 0.5:.1f}" fill="{colour}" '
            f'fill-opacity=".75"><title>{part.n_rows:,} rows: predicted {part.predicted:.3f}, came true '
            f"{part.observed:.3f}</title></circle>"
            for x, y, part in points
        ]
        at = TOP + SIZE + 58 + ROW * position
        parts += [
            f'<circle cx="{LEFT}" cy="{at - 4}" r="5" fill="{colour}"/>',
            f'<text x="{LEFT + 12}" y="{at}">{escape(name)}: {total:,} rows, '
            f"error {calibration.error:.3f}</text>",
        ]
    return "\n".join([*parts, "</svg>\n"])


def _x(value: float) -> float:
    return LEFT + SIZE * value


def _y(value: float) -> float:
    return TOP + SIZE * (1 - value)


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line x1="{_x(x1):.0f}" y1="{_y(y1):.0f}" x2="{_x(x2):.0f}" y2="{_y(y2):.0f}" class="{kind}"/>'
