"""What a run's terms refuse before any party is told of them."""

import pytest
from pydantic import ValidationError

from shared.protocol.terms import TaskTerms


@pytest.mark.parametrize(
    "template", ["{question}", "Q: {question}\nA:", 'As {"answer": 1}, {like this}:\n{question}\n']
)
def test_a_template_holds_the_question_once(template: str):
    """Braces around what can be no field stay, and so do the question's own."""
    assert TaskTerms(template=template).prompt("{x} {question}?") == template.replace("{question}", "{x} {question}?")


@pytest.mark.parametrize("template", ["", "Why?", "{question} {question}", "{question} ", "{question}\nAnswer:\t"])
def test_a_template_without_the_question_or_with_a_space_at_its_end_is_refused(template: str):
    """One space stands before the answer, and it is not the template's."""
    with pytest.raises(ValidationError):
        TaskTerms(template=template)


@pytest.mark.parametrize(
    ("template", "found"),
    [
        ("{question}\n{choices}\nAnswer:", "{choices}"),
        ("{{question}}", "{{question}}"),
        ("{context} {question} {0} {}", "{context}, {0}, {}"),
        ("{question} {question!r} { question }", "{question!r}, { question }"),
    ],
)
def test_a_template_has_no_other_field(template: str, found: str):
    """Models would be trained on the letters of its name, and nobody would notice."""
    with pytest.raises(ValidationError, match=r"no other field") as caught:
        TaskTerms(template=template)
    assert f"here is {found}, which" in str(caught.value)
