"""Cells that have been run, by a digest of all that decides their result."""

import ast
import hashlib
import json
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from bench.paper.cells import Outcome, Place
from bench.paper.config import Experiment
from bench.paper.methods import Cell, terms_of
from bench.paper.parties import AUXILIARY, VALIDATION
from shared.ml.digests import base_model_digest
from shared.ml.models import pick_device

ROOT = Path(__file__).parents[2]
CODE = (
    *("shared", "services", "bench/federation.py", "bench/no_op.py"),
    *(f"bench/paper/{name}.py" for name in ("cells", "judge", "methods", "parties")),
)
"""What makes a result, and the bytes on its way."""
FOR_PEOPLE = ("cli", "web", "dashboard")
"""Folders of those whose code has no part in it."""
PACKAGES = ("torch", "transformers", "peft", "tokenizers", "numpy")


@dataclass(frozen=True)
class Cache:
    """A folder of outcomes, and of runs that are not at their end."""

    folder: Path

    def key(self, experiment: Experiment, cell: Cell, place: Place) -> str:
        """Return the digest of a cell: terms, models, examples, precision, code and versions.

        Raises:
            ModelUnreadable, ConfigurationError: a model cannot be read, or the terms cannot be.
        """
        terms = terms_of(experiment, cell, llm=place.llm, slm=place.slm)
        folders = {str(place.llm): place.llm, str(place.slm): place.slm}
        parties = (*cell.agents, AUXILIARY, VALIDATION, place.parties.measured_on)
        content = {
            "terms": terms.model_dump(mode="json", exclude={"llm", "slm", "name"}),
            "models": [base_model_digest(folders[path], cache=place.digest_cache) for path in (terms.llm, terms.slm)],
            "agents": cell.agents,
            "examples": {party: _digest(place.parties.source(party).path) for party in parties},
            "columns": place.parties.columns.model_dump(mode="json"),
            "held": [experiment.dtype, str(pick_device(experiment.device))],
            "code": code_digest(),
            "versions": {package: version(package) for package in PACKAGES},
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:24]

    def run_folder(self, key: str) -> Path:
        """Return where the cell's run keeps its state until it has ended."""
        return self.folder / "runs" / key

    def get(self, key: str) -> Outcome | None:
        """Return what came of a cell, if it has been run."""
        file = self._file(key)
        return Outcome.model_validate_json(file.read_text()) if file.exists() else None

    def put(self, key: str, outcome: Outcome) -> None:
        """Keep what came of a cell."""
        file = self._file(key)
        file.parent.mkdir(parents=True, exist_ok=True)
        new = file.with_suffix(".new")
        new.write_text(outcome.model_dump_json(indent=1))
        new.replace(file)

    def _file(self, key: str) -> Path:
        return self.folder / "cells" / f"{key}.json"


def code_digest(root: Path = ROOT) -> str:
    """Return a digest of the code that computes results: what is said about it, in comments and so on, is left out."""
    files = [file for path in CODE for file in _sources(root / path)]
    return hashlib.sha256("".join(_without_words(file) for file in files).encode()).hexdigest()


def _without_words(file: Path) -> str:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [one for one in node.body if not _is_text(one)]
    return ast.dump(tree)


def _is_text(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _sources(path: Path) -> list[Path]:
    every = [path] if path.is_file() else sorted(path.rglob("*.py"))
    return [file for file in every if not set(file.relative_to(path).parts) & set(FOR_PEOPLE)]


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
