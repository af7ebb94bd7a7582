import io

import pytest
import structlog
from rich.table import Table

from shared.cli.console import Output
from shared.logs import log_to_stderr
from shared.printable import printable

NASTY = "\x1b[2J\x1b]0;title\x07\u202eevil\x9b31m\r\x00"


@pytest.mark.parametrize("text", ["", "plain", "zwölf Löwen", "a table:\n\ta\tb", "日本語"])
def test_what_people_write_stays_as_it_is(text: str):
    """Letters of any script, spaces, tabs and lines."""
    assert printable(text) == text


def test_what_a_terminal_would_obey_is_replaced():
    """Escape sequences, bells, carriage returns and marks that turn the direction; nothing is left out."""
    shown = printable(NASTY)
    assert len(shown) == len(NASTY)
    assert shown.isprintable()


def test_a_command_shows_nothing_that_a_terminal_would_obey(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Wherever text from elsewhere stands: in a line, a note, a problem or a table; our own colours stay."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    output = Output(as_json=False)
    table = Table("name")
    table.add_row(NASTY)
    output.line(NASTY)
    output.note(NASTY)
    output.screen.print(table)
    output.problem("internal", NASTY)
    told = capsys.readouterr()
    for text in (told.out, told.err):
        assert "\x1b[2J" not in text
        assert not {"\x07", "\x00", "\x9b", "\u202e"} & set(text)
    assert "\x1b[1;31m" in told.err


def test_a_log_line_is_one_line_and_plain(monkeypatch: pytest.MonkeyPatch):
    """Whatever a path or a detail holds, it adds no line, and no terminal obeys it."""
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    before = structlog.get_config()
    try:
        structlog.reset_defaults()
        log_to_stderr()
        structlog.get_logger().info("request.refused", path="/\x1b[2J", detail=f"no\nrequest.accepted {NASTY}", code=7)
    finally:
        structlog.configure(**before)
    (line,) = stream.getvalue().splitlines()
    assert line.isprintable()
    assert "code=7" in line
