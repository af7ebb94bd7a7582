"""Write the list of crash points anew: ``python -m tests.crash.record``, after any change of what is made durable."""

from tests.crash.conductor import conducted
from tests.crash.points import LIST, as_list
from tests.crash.seams import points_in
from tests.crash.stories import STORIES


def main() -> None:
    """Play every story once, with nobody killed."""
    lines: list[str] = []
    for story in STORIES.values():
        with conducted(story) as conductor:
            conductor.play()
            lines += as_list(story.name, points_in(conductor.site.passed))
    LIST.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    print(f"{LIST}: {sum(2 * int(line.split()[1]) for line in lines)} points of {len(lines)} kinds of steps")  # noqa: T201


if __name__ == "__main__":
    main()
