"""Draws docs/step_times.svg: the step times of docs/plan_quality.md, over a bound that no plan beats.

python docs/make_chart.py
"""

from pathlib import Path

from svg import box, page, text

TABLE = Path(__file__).with_name("plan_quality.md")
CLUSTER, CAPACITY = "910B", "8192"
# Columns of the table that make a bar, the better of two where there are several; and its colour.
BARS = {
    "free": (["free"], "#0072B2"),
    "lockstep": (["lockstep"], "#56B4E9"),
    "better of Megatron-Core's": (["megatron-hybrid", "megatron-dynamic"], "#E69F00"),
    "the paper's": (["paper"], "#CC79A7"),
    "best static degree": (["static"], "#9aa5b1"),
}
LEFT, TOP, BAR, GAP, WIDTH, MOST = 110, 66, 13, 16, 620, 2.7


def rows() -> list[dict[str, str]]:
    """The table's rows of this cluster and capacity, by column."""
    found, header = [], []
    for line in TABLE.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[:3] == ["cluster", "tokens a rank", "data"]:
            header = cells
        elif header and cells[:2] == [CLUSTER, CAPACITY] and len(cells) == len(header):
            found.append(dict(zip(header, cells, strict=True)))
    return found


def main() -> None:
    table = rows()
    assert table, f"{TABLE}: no rows of {CLUSTER}, {CAPACITY}"
    scale = WIDTH / MOST
    title = (
        f"step time (1 is a bound that no plan beats): 512 samples, 64 ranks of {int(CAPACITY):,} tokens, Qwen3-VL-8B"
    )
    parts = [text(20, 24, title, size=15)]
    x = 20.0
    for name, (_, colour) in BARS.items():
        parts += [box(x, 36, 12, 12, colour, name), text(x + 17, 46, name)]
        x += 34 + 6.6 * len(name)
    bottom = TOP + len(table) * (len(BARS) * BAR + GAP)
    for tick in (0.0, 0.5, 1.0, 1.5, 2.0, 2.5):
        at, colour = LEFT + scale * tick, "#57606a" if tick == 1 else "#d0d7de"
        parts.append(f'<line x1="{at:.1f}" y1="{TOP - 6}" x2="{at:.1f}" y2="{bottom}" stroke="{colour}"/>')
        parts.append(text(at, bottom + 14, "1: no plan is quicker" if tick == 1 else f"{tick:g}", anchor="middle"))
    y = float(TOP)
    for row in table:
        parts.append(text(LEFT - 10, y + len(BARS) * BAR / 2 + 4, row["data"], anchor="end"))
        for name, (columns, colour) in BARS.items():
            ratio = min(float(row[column]) for column in columns)
            parts.append(box(LEFT, y, scale * ratio, BAR, colour, f"{row['data']}, {name}: {ratio:.3f}"))
            parts.append(text(LEFT + scale * ratio + 5, y + BAR - 3, f"{ratio:.2f}", size=10))
            y += BAR
        y += GAP
    drawing = Path(__file__).with_name("step_times.svg")
    drawing.write_text(page(LEFT + WIDTH + 40, bottom + 24, parts))
    print(f"{drawing.name}: {len(table)} cases")


if __name__ == "__main__":
    main()
