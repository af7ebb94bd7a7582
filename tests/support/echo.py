"""The other side of a conversation, for tests: says what it is asked, and ends with a complaint when it is told to."""

import sys

from bench.other_side import answer_questions


def echo(**question: object) -> dict[str, object]:
    """Answer with the question."""
    if question.get("end"):
        raise ValueError("that is enough")
    return question


answer_questions(sys.stdin, sys.stdout, echo)
