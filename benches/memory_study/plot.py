"""The plot of docs/memory.md: what a connection takes of each server, on a logarithmic axis. Measures nothing.

An SVG that follows the reader's colour scheme, drawn from the figures alone.
"""

from html import escape
from math import ceil, floor, log10

WIDTH, LEFT, RIGHT, ROW = 960, 390, 120, 26
STYLE = """svg{font:14px system-ui,-apple-system,"Segoe UI","DejaVu Sans",sans-serif}
.bg{fill:#fff}text{fill:#10252b}.s{font-size:12.5px;fill:#52666c}.t{font-weight:600}.g{stroke:#d5dfe0;stroke-width:1}
.w{stroke:#0b6b6b;stroke-width:2}.o{fill:#0b6b6b}.k{fill:none;stroke:#b4430f;stroke-width:2}.h{fill:#eef5f5}
@media(prefers-color-scheme:dark){.bg{fill:#0d1518}text{fill:#e4eeee}.s{fill:#a5b8bd}.g{stroke:#28383d}
.w{stroke:#4cc3b8}.o{fill:#4cc3b8}.k{stroke:#ff9a66}.h{fill:#12282a}}"""


def svg(figures):
    """Both tables of servers, one below the other, on one axis."""
    panels = [("without TLS", figures["tables"].get("others", {})), ("with TLS", figures["tables"].get("tls", {}))]
    panels = [(name, [(row, cells) for row, cells in rows.items() if cells["user"]["value"]]) for name, rows in panels]
    values = [cells["user"]["value"] for _, rows in panels for _, cells in rows]
    if not values:
        return "<svg xmlns=\"http://www.w3.org/2000/svg\"/>\n"
    low, high = floor(log10(min(values))), ceil(log10(max(values)))

    def x(value):
        inside = min(max(log10(value), low), high)
        return LEFT + (WIDTH - LEFT - RIGHT) * (inside - low) / (high - low)

    parts, y, lines = [], 64, []
    for name, rows in panels:
        if not rows:
            continue
        parts.append(f'<text class="t" x="20" y="{y}">{name}</text>')
        for row, cells in sorted(rows, key=lambda one: one[1]["user"]["value"]):
            y += ROW
            lines.append(drawn(row, cells, x, y))
        y += 2 * ROW
    height = y + 10
    grid = []
    for power in range(low, high + 1):
        at = x(10 ** power)
        grid.append(f'<path class="g" d="M{at:.1f} 40V{height - 34}"/>'
                    f'<text class="s" x="{at:.1f}" y="32" text-anchor="middle">{10 ** power:,}</text>')
    label = ("User memory of an idle connection by server, in bytes, on a logarithmic axis: "
             + "; ".join(f"{row} {cells['user']['value']:,.0f}" for _, rows in panels for row, cells in rows))
    legend = (f'<circle class="o" cx="{LEFT}" cy="{height - 18}" r="5"/><text class="s" x="{LEFT + 12}" y="{height - 14}">'
              f'bytes a connection, with its 95 % interval</text><circle class="k" cx="{LEFT + 290}" cy="{height - 18}" r="4.5"/>'
              f'<text class="s" x="{LEFT + 302}" y="{height - 14}">kept of each after all have left</text>')
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(label)}">\n'
            f'<style>\n{STYLE}\n</style>\n<rect class="bg" width="{WIDTH}" height="{height}" rx="10"/>\n'
            + "\n".join([*grid, *parts, *lines, legend]) + "\n</svg>\n")


def drawn(row, cells, x, y):
    """One server's line: its name, its figure with the interval, and what it keeps."""
    user, kept = cells["user"], cells.get("kept") or {"value": None}
    value, sure = user["value"], user["sure"] or 0
    low, high = max(value - sure, value / 100), value + sure
    shade = f'<rect class="h" x="12" y="{y - 16}" width="{WIDTH - 24}" height="{ROW - 2}" rx="4"/>' if row.startswith("Fantail") else ""
    text = shade + f'<text x="{LEFT - 16}" y="{y}" text-anchor="end">{escape(row)}</text>'
    text += f'<path class="w" d="M{x(low):.1f} {y - 5}H{x(high):.1f}"/>'
    if kept["value"] and kept["value"] > 0:
        text += f'<circle class="k" cx="{x(kept["value"]):.1f}" cy="{y - 5}" r="4.5"/>'
    text += f'<circle class="o" cx="{x(value):.1f}" cy="{y - 5}" r="5"/>'
    return text + f'<text class="s" x="{WIDTH - 20}" y="{y}" text-anchor="end">{value:,.0f} B</text>'
