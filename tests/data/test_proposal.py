"""What `init` proposes that columns mean."""

import pytest

from shared.data.proposal import Proposal, paths, propose

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
        (
            {"Nr": "1", "question": "Why?", "Antwort A": "x", "Antwort B": "y", "Antwort C": "", "answer": "B"},
            Proposal(
                "multiple_choice",
                {
                    "question": "question",
                    "choices": ("Antwort A", "Antwort B", "Antwort C"),
                    "labels": ("A", "B", "C"),
                    "answer": "answer",
                },
            ),
        ),
        (
            {"question": "Why?", "ending0": "x", "ending1": "y", "label": "1"},
            Proposal(
                "multiple_choice",
                {"question": "question", "choices": ("ending0", "ending1"), "labels": ("0", "1"), "answer": "label"},
            ),
        ),
        (
            {"question": "Why?"} | {f"Wahl {n}": str(n * n) for n in range(1, 11)} | {"answer": "10"},
            Proposal(
                "multiple_choice",
                {
                    "question": "question",
                    "choices": tuple(f"Wahl {n}" for n in range(1, 11)),
                    "labels": tuple(map(str, range(1, 11))),
                    "answer": "answer",
                },
            ),
        ),
    ],
    ids=[
        "arc",
        "commonsenseqa",
        "arc-hub",
        "dolly",
        "sheet",
        "index",
        "text",
        "letters",
        "a column each",
        "numbers from 0",
        "ten of them",
    ],
)
def test_columns_of_public_data_sets_are_recognised(row: dict[str, object], expected: Proposal):
    """By their names, and by what the first row holds."""
    assert propose(row) == expected


def test_what_is_not_recognised_is_left_out():
    """A file of unknown columns gives no wrong proposal, but none."""
    assert propose({"x": 1, "y": "z"}) == Proposal("completion", {})


def test_columns_that_merely_end_in_a_letter_are_no_choices():
    """Choices are labelled from the first on, without a gap."""
    assert propose({"Idee": "x", "Frage": "y", "Teil B": "v", "Teil D": "w"}).kind == "completion"


def test_what_is_known_counts_and_what_follows_from_it_is_found():
    """Of a kind that was said the settings are sought, whatever else the columns could be for."""
    row = {"Frage": "Why?", "Wahl A": "x", "Wahl B": "y", "Loesung": "B"}
    assert propose(row, {"answer": "Loesung"}).columns["labels"] == ("A", "B")
    assert propose(row, {"prompt": "Frage"}) == Proposal("completion", {"prompt": "Frage"})
    assert propose({"Frage": "Why?"}, {"question": "Frage"}) == Proposal("multiple_choice", {"question": "Frage"})
    assert propose(row, kind="completion") == Proposal("completion", {})


def test_columns_inside_others_are_listed_by_their_paths():
    """As settings name them."""
    assert paths(ARC) == ["id", "question.stem", "question.choices.text", "question.choices.label", "answerKey"]


def test_an_index_is_below_the_number_of_choices():
    """Counting starts at 0; of what is higher nothing is proposed as an index, for it would not be read."""
    row = {"question": "Why?", "options": ["x", "y"], "answer": 2}
    assert "answer_is" not in propose(row).columns
