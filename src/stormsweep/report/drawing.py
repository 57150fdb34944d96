"""Drawings as they stand in a page: part of its markup, in colours that a dark page turns."""

from __future__ import annotations

import base64
import colorsys
import re
from html import escape

#: What a dark page is painted with; every counterpart is to be told apart from it.
DARK_PAPER = "#16191d"
#: A drawing larger than this goes into the page as pixels.
LARGEST_SVG = 600_000
_CONTRAST = 4.0
#: Colours whose channels are closer than this are greys to the eye.
_GREY = 0.1
_COLOUR = re.compile(r"#[0-9a-f]{6}\b")
_ADDRESS = re.compile(r'((?<= id=")|(?<=xlink:href="#)|(?<=url\(#))')


def counterpart(colour: str) -> str:
    """Return what a colour of a figure becomes on a dark page.

    Greys are turned round, so that white is the paper there too. Others keep their hue and are made
    lighter where they would not be told apart from the paper.

    Parameters
    ----------
    colour : str
        Such as ``#0072b2``.

    Examples
    --------
    >>> counterpart("#ffffff"), counterpart("#000000"), counterpart("#56b4e9")
    ('#16191d', '#ededed', '#56b4e9')
    """
    if colour.lower() == "#ffffff":
        return DARK_PAPER
    channels = _channels(colour)
    hue, light, saturation = colorsys.rgb_to_hls(*channels)
    if max(channels) - min(channels) < _GREY:
        return _hex(hue, 0.93 - 0.83 * light, 0.0)
    while contrast(_hex(hue, light, saturation), DARK_PAPER) < _CONTRAST and light < 0.95:
        light += 0.01
    return _hex(hue, light, saturation)


def _channels(colour: str) -> tuple[float, float, float]:
    red, green, blue = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
    return red, green, blue


def _hex(hue: float, light: float, saturation: float) -> str:
    rgb = colorsys.hls_to_rgb(hue, light, saturation)
    return "#" + "".join(f"{round(255 * part):02x}" for part in rgb)


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours as WCAG 2 defines it."""
    high, low = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def _luminance(colour: str) -> float:
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
        for part in _channels(colour)
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def markup(svg: str, name: str, words: str, pixels: bytes) -> str:
    """Return a drawing as part of a page.

    Parameters
    ----------
    svg : str
        The drawing, as matplotlib writes it.
    name : str
        Goes before every id in it: those of two figures must not be the same.
    words : str
        For those who cannot see it.
    pixels : bytes
        The drawing as PNG: shown instead where the other is too large.

    Returns
    -------
    str
        An ``svg`` element whose colours are variables (`variables` says what they are), or an
        ``img``. One that holds a picture keeps its colours and stands on a white card on dark
        pages: pictures are not turned.
    """
    said = escape(words)
    if len(svg) > LARGEST_SVG:
        data = base64.b64encode(pixels).decode("ascii")
        return f'<img class="card" src="data:image/png;base64,{data}" alt="{said}">'
    body = svg[svg.index("<svg") :]
    # Its rule for strokes would be one for the whole page, which has it in its own style sheet.
    for rest in ("<!--.*?-->", "<metadata>.*?</metadata>", r"<defs>\s*<style.*?</style>\s*</defs>"):
        body = re.sub(rest, "", body, flags=re.DOTALL)
    body = _ADDRESS.sub(f"{name}-", body)
    body = re.sub(r"\s*\n\s*", " ", body).strip()
    kind = 'class="card"'
    if "<image" not in body:
        body = _COLOUR.sub(lambda found: f"var(--c{found.group()[1:]})", body)
        kind = 'style="fill: var(--c000000)"'
    return body.replace("<svg", f'<svg role="img" aria-label="{said}" {kind}', 1)


def variables(page: str) -> tuple[str, str]:
    """Return the style rules for all colours of a page's drawings: on white and on dark paper.

    Examples
    --------
    >>> variables("fill: var(--cffffff)")
    ('--cffffff:#ffffff', '--cffffff:#16191d')
    """
    used = sorted(set(re.findall(r"var\(--c([0-9a-f]{6})\)", page)))
    light = ";".join(f"--c{colour}:#{colour}" for colour in used)
    dark = ";".join(f"--c{colour}:{counterpart('#' + colour)}" for colour in used)
    return light, dark
