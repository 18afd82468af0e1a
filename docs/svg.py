"""What the drawings of this folder are made of."""


def box(x: float, y: float, width: float, height: float, colour: str, title: str) -> str:
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{colour}" rx="2" '
        f'stroke="white"><title>{title}</title></rect>'
    )


def text(x: float, y: float, content: str, *, size: int = 12, anchor: str = "start", colour: str = "#57606a") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{colour}">{content}</text>'


def page(width: float, height: float, parts: list[str]) -> str:
    """A drawing on white, which a dark page does not swallow."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'font-family="system-ui, sans-serif">\n<rect width="100%" height="100%" fill="white"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )
