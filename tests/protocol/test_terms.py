"""What a run's terms refuse before any party is told of them."""

import pytest
from pydantic import ValidationError

from shared.protocol.terms import CohortTerms, TaskTerms
from tests.support.federations import terms_of


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


def test_agents_evaluate_in_runs_that_add_up_masked_sums_alone():
    """Under PlaintextAggregation the coordinator would be told what each has measured."""
    cohort = CohortTerms(min_count=3, max_count=4, min_seconds=0, max_seconds=1)
    secure = terms_of(aggregation="SecureAggregation", cohort=cohort, evaluation_examples=100)
    assert secure.evaluation_examples == 100
    with pytest.raises(ValidationError, match=r"in masked sums alone: set it to 0, or aggregation to Secure"):
        terms_of(evaluation_examples=100)


def test_a_round_asks_as_many_as_it_takes_or_more():
    """One that asked fewer would never be full, and would wait for its shortest time whatever came."""
    counts = {"min_count": 1, "max_count": 3, "min_seconds": 1, "max_seconds": 2}
    assert CohortTerms.model_validate(counts | {"sample_count": 3}).sample_count == 3
    with pytest.raises(ValidationError, match=r"cohort.sample_count is 2 and max_count 3"):
        CohortTerms.model_validate(counts | {"sample_count": 2})


def test_terms_without_a_sample_are_written_as_they_were_before_there_were_samples():
    """Else the manifests that operators have signed would be other ones."""
    assert "sample_count" not in terms_of().model_dump_json()
