"""The look that all pages share, and the headers that they are served with."""

import re

import pytest

from shared.web import CONTENT_SECURITY_POLICY, STYLE

CSS = STYLE.read_text()
LIGHT, DARK = re.findall(r":root {\n(.*?)\n *}", CSS, re.DOTALL)[:2]
TEXTS = ("ink", "quiet", "accent", "accent-strong", "good", "warn", "bad")
GROUNDS = ("ground", "surface", "sunken")
SOFT = [(name, f"{name}-soft") for name in ("good", "warn", "bad", "accent")]
PAIRS = [
    *((text, ground) for text in TEXTS for ground in GROUNDS),
    *SOFT,
    *(("ink", soft) for _, soft in SOFT),
    *(("quiet", soft) for _, soft in SOFT),
    *(("accent", soft) for _, soft in SOFT),
    ("accent-strong", "accent-soft"),
    ("on-accent", "accent"),
    ("on-accent", "accent-strong"),
]
LINES = [("line-strong", "surface"), *((f"series-{number}", "surface") for number in range(1, 7))]


def luminance(colour: str) -> float:
    """Return the relative luminance of WCAG 2.2."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours."""
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("scheme", [LIGHT, DARK], ids=["light", "dark"])
def test_text_and_lines_can_be_told_from_what_they_stand_on(scheme: str):
    """4.5 for text and 3 for edges of controls and lines of charts (WCAG 2.2 AA), on light screens and on dark ones."""
    colour = dict(re.findall(r"--([\w-]+): (#\w{6});", scheme))
    weak = {pair: contrast(colour[pair[0]], colour[pair[1]]) for pair in PAIRS}
    assert {pair: value for pair, value in weak.items() if value < 4.5} == {}
    faint = {pair: contrast(colour[pair[0]], colour[pair[1]]) for pair in LINES}
    assert {pair: value for pair, value in faint.items() if value < 3} == {}


def test_the_look_is_fetched_from_nowhere():
    """No font, no picture, no other sheet; and each token that a rule names is there."""
    assert not re.search(r"url\(|@import|@font-face|https?:", CSS)
    assert set(re.findall(r"var\(--([\w-]+)\)", CSS)) <= set(re.findall(r"--([\w-]+):", LIGHT))


def test_pages_run_and_load_only_what_their_own_server_has():
    """No inline script or style, and nothing at all of a kind that no page needs."""
    assert CONTENT_SECURITY_POLICY.startswith("default-src 'none'; ")
    assert "unsafe" not in CONTENT_SECURITY_POLICY
