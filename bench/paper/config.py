"""What an experiment is: a pair of models, a data set and its split, and the methods that are compared."""

from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, Field

from bench.data_settings import read_data_settings
from services.coordinator.presets import PRESETS
from shared.configuration import read_toml, validate
from shared.devices import DeviceName, DtypeName
from shared.errors import ConfigurationError
from shared.protocol.terms import FROZEN, Count, Seed

MethodName: TypeAlias = Literal[
    "standalone", "fedavg", "fedavg-aux", "lambda-0", "fedcollm", "fedcollm-sequential", "centralized"
]


class DataFiles(BaseModel):
    """Files of examples, one JSON object a line; paths begin at ``--data``.

    The train file is split at random into five equal parts: four are private, one is the auxiliary set.
    """

    settings: Annotated[Path, Field(description="Columns and task, in a file such as those in examples/data.")]
    train: str
    validation: Annotated[
        str | None, Field(description="Left out: as many rows of the train file, drawn before it is split.")
    ] = None
    test: Annotated[
        str | None, Field(description="Left out: nothing is measured on a test set, as where settings are chosen.")
    ] = None
    split_seed: Seed = 123
    examples_a_party: Annotated[Count | None, Field(description="Left out: a fifth of the train file.")] = None
    validation_examples: Annotated[Count | None, Field(description="Left out: all that there are.")] = None
    test_examples: Annotated[Count | None, Field(description="Left out: all that there are.")] = None
    model_config = FROZEN


class DemoData(BaseModel):
    """The demo's own task, whose examples are made (examples/demo/task.py): no file is needed."""

    demo_seed: Seed
    examples_a_party: Count
    auxiliary_examples: Count
    validation_examples: Count
    test_examples: Annotated[Count | None, Field(description="Left out: there is no test set.")] = None
    model_config = FROZEN


class Experiment(BaseModel):
    """One experiment, as its TOML file says it."""

    title: str
    llm: Annotated[str, Field(description="A folder under --models.")]
    slm: Annotated[str, Field(description="A folder under --models.")]
    dtype: DtypeName = "float32"
    device: DeviceName = "cpu"
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)]
    methods: tuple[MethodName, ...] = (
        *("standalone", "fedavg", "fedavg-aux", "lambda-0", "fedcollm", "fedcollm-sequential", "centralized"),
    )
    preset: Annotated[str, Field(description="Of terms; those of `terms` are above it.")]
    terms: Annotated[dict[str, Any], Field(description="As in a run's file of terms.")] = {}
    variants: Annotated[
        dict[str, dict[str, Any]], Field(description="FedCoLLM with other terms, by the name that the report gives it.")
    ] = {}
    data: DataFiles | DemoData
    model_config = FROZEN


def read_experiment(path: Path) -> Experiment:
    """Read an experiment from its TOML file.

    Raises:
        ConfigurationError: there is no such file, or it says something that an experiment cannot be.
    """
    experiment = validate(Experiment, read_toml(Experiment, path), what=str(path))
    if experiment.preset not in PRESETS:
        raise ConfigurationError(f"{path}: there is no preset {experiment.preset!r}: there are {', '.join(PRESETS)}")
    if isinstance(experiment.data, DemoData):
        return experiment
    settings = (path.parent / experiment.data.settings).resolve()  # like every path in a file, from where the file lies
    if not settings.is_file():
        raise ConfigurationError(f"{path}: there is no file {settings}: data.settings is one such as examples/data has")
    if read_data_settings(settings)[1].kind != "multiple_choice":
        raise ConfigurationError(
            f"{path}: {settings.name} is of completions, and no answer of theirs is right or wrong as a whole: methods "
            "are compared on multiple choice"
        )
    return experiment.model_copy(update={"data": experiment.data.model_copy(update={"settings": settings})})
