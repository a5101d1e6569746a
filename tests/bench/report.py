"""Ratios, tables and the chart."""

import operator
import statistics

from . import plan


def ratios(rates, rsa_verify_seconds):
    """Divides the figures of tenant-tasks by those of the others in the same round."""
    rows = []
    for load, by_name in rates.items():
        ours = by_name[plan.OURS]
        for name, figures in by_name.items():
            if name not in [plan.OURS, plan.FASTAPI_PORT_TWO_WORKERS]:
                rows.append(ratio(load, name, f"{load} ÷ {plan.NAMES[name]}", ours, figures))
        if load == "new":
            # At the floor's rate wrk never sleeps. The sum therefore excludes the time to wake wrk for each response.
            sums = [1 / (1 / rate + rsa_verify_seconds) for rate in by_name[plan.FLOOR]]
            rows.append(ratio(load, "sum", "new ÷ sum of the floor's time and one RSA verification", ours, sums))
    return rows


def ratio(load, name, text, ours, others):
    by_round = [one / other for one, other in zip(ours, others, strict=True)]
    bound = plan.BOUNDS.get((load, name))
    value = statistics.median(by_round)
    reached = None if bound is None else value >= bound
    spread = {"lowest": min(by_round), "highest": max(by_round)}
    return {"measure": text, "value": value, **spread, "bound": bound, "reached": reached}


def row(name, value, unit, bound, note, better="lower", published=True):
    """Returns one row of a separate part. A row without a bound is for information only.

    The guide contains the rows that are published, with their notes up to the first semicolon.
    """
    return {
        "measure": name,
        "value": value,
        "unit": unit,
        "bound": bound,
        "better": better,
        "note": note,
        "published": published,
    }


def spread(figures, unit):
    return f"{min(figures):.2f} to {max(figures):.2f} {unit} in {len(figures)} runs"


def print_rates(result):
    rows = [("load", "contestant", "requests/s", "lowest … highest", "÷ floor", "server busy")]
    for load, by_name in result["rates"].items():
        for name, rates in by_name.items():
            to_floor = "–"
            if floors := by_name.get(plan.FLOOR):
                by_round = [rate / floor for rate, floor in zip(rates, floors, strict=True)]
                to_floor = f"{statistics.median(by_round):.3f}"
            cells = [
                load,
                plan.NAMES[name],
                f"{statistics.median(rates):,.0f}",
                f"{min(rates):,.0f} … {max(rates):,.0f}",
                to_floor,
                f"{statistics.median(result['busy'][load][name]):.0%}",
            ]
            rows.append(cells)
    print_table(rows)
    print("Where the server was not 100% busy, wrk or another process was the bottleneck.\n")


def print_ratios(rows):
    table = [("tenant-tasks", "ratio", "lowest … highest", "at least", "")]
    for row in rows:
        cells = [
            row["measure"],
            f"{row['value']:.2f}",
            f"{row['lowest']:.2f} … {row['highest']:.2f}",
            "" if row["bound"] is None else f"{row['bound']:g}",
            {None: "", True: "yes", False: "NO"}[row["reached"]],
        ]
        table.append(cells)
    print_table(table)
    print()


def print_rows(rows):
    """Prints the rows of a separate part."""
    table = [("measure", "value", "bound", "", "note")]
    for row in rows:
        bound, reached = "", ""
        if row["bound"] is not None:
            at_least = row["better"] == "higher"
            bound = f"{'≥' if at_least else '≤'} {row['bound']:g}"
            within = row["value"] >= row["bound"] if at_least else row["value"] <= row["bound"]
            reached = "yes" if within else "NO"
        table.append((row["measure"], f"{row['value']:,.2f} {row['unit']}", bound, reached, row["note"]))
    print_table(table)


def print_table(rows):
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def replace_tables(guide, result, parts):
    """Returns the guide with the tables of this result between its two markers."""
    start, end = "<!-- tables: written by tests/bench/run -->\n", "<!-- end of tables -->"
    before, _, rest = guide.partition(start)
    after = rest.partition(end)[2]
    tables = [markdown_ratios(result["ratios"]), *(markdown_rows(part, result[part]) for part in parts)]
    return before + start + "\n" + "\n".join(tables) + "\n" + end + after


def markdown_ratios(rows):
    table = [("tenant-tasks", "at least", "measured", "lowest … highest")]
    for row in rows:
        bound = "–" if row["bound"] is None else f"{row['bound']:g}"
        spread = f"{row['lowest']:.2f} … {row['highest']:.2f}"
        table.append((row["measure"], bound, f"{row['value']:.2f}", spread))
    return markdown(table)


def markdown_rows(part, rows):
    table = [(f"`{part}`", "bound", "measured", "note")]
    for row in filter(operator.itemgetter("published"), rows):
        sign = "≥" if row["better"] == "higher" else "≤"
        bound = "–" if row["bound"] is None else f"{sign} {row['bound']:g}"
        value = f"{row['value']:,.2f} {row['unit']}".strip()
        table.append((row["measure"], bound, value, row["note"].partition(";")[0]))
    return markdown(table)


def markdown(table):
    head, *rows = (f"| {' | '.join(cells)} |" for cells in table)
    return "\n".join([head, "|---" * len(table[0]) + "|", *rows, ""])


def chart(result):
    """Returns an SVG with bars of requests per second and one panel per load, for light and dark pages."""
    width, bar, gap, left = 860, 20, 8, 270
    parts, y = [], 20
    for load, by_name in result["rates"].items():
        medians = {plan.NAMES[name]: statistics.median(rates) for name, rates in by_name.items()}
        parts.append(f'<text class="title" x="20" y="{y + 14}">{load}: {plan.LOADS[load]}</text>')
        y += 28
        longest = max(medians.values())
        for name, median in medians.items():
            length = max(1, (width - left - 130) * median / longest)
            kind = "ours" if name == plan.NAMES[plan.OURS] else "other"
            parts.append(f'<text x="{left - 10}" y="{y + 15}" text-anchor="end">{name}</text>')
            parts.append(f'<rect class="{kind}" x="{left}" y="{y}" width="{length:.1f}" height="{bar}" rx="2"/>')
            parts.append(f'<text x="{left + length + 8:.1f}" y="{y + 15}">{rounded(median)}/s</text>')
            y += bar + gap
        y += 14
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {y}" width="{width}" height="{y}" role="img">',
        "<title>Requests per second, by load and contestant</title>",
        "<style>",
        "svg { background: #ffffff } text { font: 13px sans-serif; fill: #24292f } .title { font-weight: bold }",
        ".ours { fill: #0969da } .other { fill: #8c959f }",
        "@media (prefers-color-scheme: dark) {",
        "svg { background: #0d1117 } text { fill: #e6edf3 } .ours { fill: #58a6ff } .other { fill: #6e7681 } }",
        "</style>",
        *parts,
        "</svg>",
        "",
    ]
    return "\n".join(lines)


def rounded(rate):
    """Keeps three digits, because the others are noise."""
    return f"{float(f'{rate:.3g}'):,.0f}" if rate >= 100 else f"{rate:.3g}"
