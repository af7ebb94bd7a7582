"""The four data sets as both sides are given them: their original files, and one template each for both."""

import json
import tomllib
from dataclasses import dataclass
from pathlib import Path

from shared.data.examples import Example, read_examples
from shared.data.source import Columns, DataSource
from shared.errors import DataUnreadable
from shared.protocol.terms import QUESTION, TaskTerms

CONFIGURATIONS = Path(__file__).parents[1] / "examples" / "data"


@dataclass(frozen=True)
class QuestionSet:
    """A file of questions somewhere under ``data``, and the configuration that a user copies for it."""

    name: str
    path: Path
    columns: Columns
    task: TaskTerms

    def examples(self) -> list[Example]:
        """Return them as agents and workers read them."""
        return read_examples(DataSource(path=self.path, columns=self.columns), self.task)

    def lm_eval_task(self) -> str:
        """Return lm-eval's task file (JSON is YAML): after its own ``arc_easy``, over the original file.

        CommonsenseQA as well: the answer's text is scored, and not the letters that lm-eval's own task asks for. A few
        of its questions list a text twice, and of equals the first is the model's choice: so it is the target too.
        """
        texts = "(question.choices | map(attribute='text') | list)"
        label = "(question.choices | map(attribute='label') | list).index(answerKey)"
        return json.dumps(
            {
                "task": self.name,
                "dataset_path": "json",
                "dataset_kwargs": {"data_files": {"validation": str(self.path.resolve())}},
                "validation_split": "validation",
                "output_type": "multiple_choice",
                "doc_to_text": self.task.template.replace(QUESTION, "{{question.stem}}"),
                "doc_to_choice": f"{{{{{texts}}}}}",
                "doc_to_target": f"{{{{{texts}.index({texts}[{label}])}}}}",
                "metric_list": [
                    {"metric": name, "aggregation": "mean", "higher_is_better": True} for name in ("acc", "acc_norm")
                ],
            },
            indent=1,
        )


# Where the file is under the folder of data, and which configuration is for it.
_FILES = {
    "arc_easy_train": ("ARC-Easy-Train.jsonl", "arc.toml"),
    "arc_easy": ("ARC-Easy-Dev.jsonl", "arc.toml"),
    "arc_challenge": ("ARC-Challenge-Dev.jsonl", "arc.toml"),
    "openbookqa": ("Main/dev.jsonl", "openbookqa.toml"),
    "commonsenseqa": ("dev_rand_split.jsonl", "commonsenseqa.toml"),
}
NAMES = tuple(name for name in _FILES if not name.endswith("_train"))


def question_set(name: str, data: Path) -> QuestionSet:
    """Return one of ``NAMES``, whose file is found by its own name, in whichever folder of ``data``.

    Raises:
        DataUnreadable: there is no such file, or more than one.
    """
    file, configuration = _FILES[name]
    found = sorted(data.rglob(file))
    if len(found) != 1:
        raise DataUnreadable(f"there are {len(found)} files {file} in {data}, and one is wanted: name another folder")
    tables = tomllib.loads((CONFIGURATIONS / configuration).read_text(encoding="utf-8"))
    columns = Columns.model_validate(tables["data"]["columns"])
    return QuestionSet(name, found[0], columns, TaskTerms.model_validate(tables["task"]))
