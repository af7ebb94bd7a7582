"""What `doctor` does with its checks."""

from contextlib import contextmanager, nullcontext

from rich.console import Console

from shared.errors import ConfigurationError
from shared.findings import Check, Finding, Verdict, examine, failed, ok, summary, table, warning


def raising(error: Exception) -> Finding:
    raise error


def verdicts(*checks: Check) -> dict[str, Verdict]:
    return {one.name: one.verdict for one in examine(checks, lambda _: nullcontext()).checks}


def test_a_check_that_fails_does_not_keep_the_others_from_being_made():
    """Whether it says so, raises one of our errors, one of the disk's, or one that nobody thought of."""
    found = verdicts(
        Check("said", lambda: failed("no")),
        Check("ours", lambda: raising(ConfigurationError("no"))),
        Check("disk", lambda: raising(PermissionError(13, "Permission denied", "/x"))),
        Check("bug", lambda: raising(ZeroDivisionError("x"))),
        Check("last", lambda: ok("yes")),
    )
    assert list(found.values()) == [Verdict.FAILED] * 4 + [Verdict.OK]


def test_what_could_only_repeat_a_finding_is_left_out():
    """Also when what it needs was itself left out; a warning is no reason."""
    found = verdicts(
        Check("a", lambda: failed("no")),
        Check("b", lambda: ok("never asked"), after=("a",)),
        Check("c", lambda: ok("never asked"), after=("b",)),
        Check("d", lambda: warning("hm", "do")),
        Check("e", lambda: ok("asked"), after=("d",)),
    )
    assert list(found.values()) == [Verdict.FAILED, Verdict.LEFT_OUT, Verdict.LEFT_OUT, Verdict.WARNING, Verdict.OK]


def test_each_check_is_shown_while_it_is_made():
    """A long one is seen to be at work."""
    shown: list[str] = []

    @contextmanager
    def showing(name: str):  # noqa: ANN202
        shown.append(name)
        yield
        shown.append("done")

    examine([Check("a", lambda: ok(str(shown))), Check("b", lambda: ok(""))], showing)
    assert shown == ["a", "done", "b", "done"]


def test_the_table_says_what_to_do_and_fits_80_columns():
    """Long details are folded beside their name, the advice stands below; brackets are no markup."""
    report = examine([Check("name", lambda: failed("long [red] " * 20, "do this"))], lambda _: nullcontext())
    console = Console(width=80, record=True, file=None, quiet=False)
    with console.capture() as captured:
        console.print(table(report.checks))
    lines = captured.get().splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].startswith("failed")
    assert "[red]" in lines[0]
    assert lines[-1].split() == ["→", "do", "this"]


def test_what_failed_stands_last():
    """Of thirty lines a terminal shows the last ones."""
    checks = [Check("a", lambda: failed("x")), Check("b", lambda: ok("y")), Check("c", lambda: ok("z"))]
    console = Console(width=80)
    with console.capture() as captured:
        console.print(table(examine(checks, lambda _: nullcontext()).checks))
    assert [line.split()[1] for line in captured.get().splitlines()] == ["b", "c", "a"]


def test_a_word_that_is_too_long_is_folded_and_not_cut():
    """Digests and paths are compared and copied."""
    digest = "0123456789abcdef" * 8
    report = examine([Check("name", lambda: ok(digest))], lambda _: nullcontext())
    console = Console(width=80)
    with console.capture() as captured:
        console.print(table(report.checks))
    assert digest in "".join(captured.get().split())


def test_the_last_line_says_what_it_comes_to():
    """Failed, warned, or well."""
    for finding, said in (
        (failed("x"), "1 of 1 checks failed"),
        (warning("x", "y"), "1 warning"),
        (ok("x"), "all is well"),
    ):
        report = examine([Check("a", lambda finding=finding: finding)], lambda _: nullcontext())
        assert said in summary(report)
        assert report.failed == (finding.verdict is Verdict.FAILED)
