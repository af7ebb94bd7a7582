"""Hints at a name that was mistyped."""

import pytest

from shared.meant import meant


@pytest.mark.parametrize(
    ("name", "known", "hint"),
    [
        ("prot", ["host", "port"], "'port' was meant?"),
        ("lm", ["slm", "llm", "vision"], "'llm' or 'slm' was meant?"),
        ("answer", ["Answer", "answers"], "'Answer' was meant?"),
        ("one", ["two", "three"], "look again"),
        ("one", [], "look again"),
    ],
    ids=["near", "as near as each other", "other capitals", "none near", "none there"],
)
def test_what_is_near_is_named_and_nothing_else(name: str, known: list[str], hint: str):
    """Two that are as near are both named, because one of them is wrong."""
    assert meant(name, known, otherwise="look again") == hint


def test_what_all_names_share_makes_none_of_them_near():
    """Two files of one kind end alike, and have nothing else in common."""
    known, ends_alike = ["run.settings.toml"], "ada.settings.toml"
    assert meant(ends_alike, known, otherwise="") != ""
    assert meant(ends_alike, known, otherwise="", part=lambda name: name.partition(".")[0]) == ""
