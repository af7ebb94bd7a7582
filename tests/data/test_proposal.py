"""What `init` proposes that columns mean."""

import pytest

from shared.data.proposal import Proposal, propose

ARC = {
    "id": "x",
    "question": {"stem": "Why?", "choices": [{"text": "a b", "label": "A"}, {"text": "c", "label": "B"}]},
    "answerKey": "B",
}
CSQA = {
    "answerKey": "A",
    "id": "x",
    "question": {
        "question_concept": "c",
        "choices": [{"label": "A", "text": "b"}, {"label": "B", "text": "c"}],
        "stem": "W?",
    },
}
HUB_ARC = {"id": "x", "question": "Why?", "choices": {"text": ["a b", "c"], "label": ["1", "2"]}, "answerKey": "2"}
DOLLY = {"instruction": "Say", "context": "", "response": "so", "category": "qa"}
SHEET = {"Question": "Why?", "A": "x", "B": "y", "C": "z", "Answer": "C"}


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (
            ARC,
            Proposal(
                "multiple_choice",
                {
                    "question": "question.stem",
                    "choices": "question.choices.text",
                    "labels": "question.choices.label",
                    "answer": "answerKey",
                },
            ),
        ),
        (
            CSQA,
            Proposal(
                "multiple_choice",
                {
                    "question": "question.stem",
                    "choices": "question.choices.text",
                    "labels": "question.choices.label",
                    "answer": "answerKey",
                },
            ),
        ),
        (
            HUB_ARC,
            Proposal(
                "multiple_choice",
                {"question": "question", "choices": "choices.text", "labels": "choices.label", "answer": "answerKey"},
            ),
        ),
        (DOLLY, Proposal("completion", {"prompt": ("instruction", "context"), "answer": "response"})),
        (
            SHEET,
            Proposal(
                "multiple_choice",
                {"question": "Question", "choices": ("A", "B", "C"), "labels": ("A", "B", "C"), "answer": "Answer"},
            ),
        ),
        (
            {"question": "Why?", "options": ["x", "y"], "answer": 1},
            Proposal(
                "multiple_choice",
                {"question": "question", "choices": "options", "answer": "answer", "answer_is": "index"},
            ),
        ),
        (
            {"question": "Why?", "choices": ["x", "y"], "answer": "y"},
            Proposal("multiple_choice", {"question": "question", "choices": "choices", "answer": "answer"}),
        ),
        (
            {"query": "Why?", "choices": ["x", "y"], "gold": "b"},
            Proposal(
                "multiple_choice", {"question": "query", "choices": "choices", "labels": ("a", "b"), "answer": "gold"}
            ),
        ),
    ],
    ids=["arc", "commonsenseqa", "arc-hub", "dolly", "sheet", "index", "text", "letters"],
)
def test_columns_of_public_data_sets_are_recognised(row: dict[str, object], expected: Proposal):
    """By their names, and by what the first row holds."""
    assert propose(row) == expected


def test_what_is_not_recognised_is_left_out():
    """A file of unknown columns gives no wrong proposal, but none."""
    assert propose({"x": 1, "y": "z"}) == Proposal("completion", {})
