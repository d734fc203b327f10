"""Reading specs: YAML in, frozen `Spec` out, and one sentence for every fault.

Every message begins with the pipeline's name and the path of the key, says what was found and names the near miss.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from nightscore.errors import ConfigurationError, near_miss, shorten
from nightscore.spec import (
    PIPELINE_NAME,
    Checks,
    Expectation,
    Features,
    Limits,
    ModelReference,
    Predictions,
    Schedule,
    Spec,
)

SPEC_FILE = "pipeline.yaml"
MOST_PROBLEMS = 12

# Where a key is unknown, these are the words it could have been.
_PARTS: Mapping[str, type[BaseModel]] = {
    "": Spec,
    "schedule": Schedule,
    "features": Features,
    "model": ModelReference,
    "checks": Checks,
    "checks.features": Expectation,
    "checks.predictions": Expectation,
    "predictions": Predictions,
    "limits": Limits,
}
_HIDDEN = {"name", "query"}


@dataclass(frozen=True)
class Problem:
    """One fault of a spec: the path of the key and a sentence about it."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class SpecError(ConfigurationError):
    """A spec cannot be used; `problems` holds every fault that was found."""

    def __init__(self, pipeline: str, problems: Sequence[Problem]) -> None:
        lines = [f"{pipeline}: {problem}" for problem in problems[:MOST_PROBLEMS]]
        if len(problems) > MOST_PROBLEMS:
            lines.append(f"{pipeline}: … and {len(problems) - MOST_PROBLEMS} more")
        super().__init__("\n".join(lines))
        self.pipeline = pipeline
        self.problems = tuple(problems)


class PipelineNotFoundError(ConfigurationError):
    """No folder of that name holds a spec."""

    def __init__(self, name: str, folder: Path, known: Sequence[str]) -> None:
        super().__init__(f"There is no pipeline {shorten(name)!r} in {folder}. {near_miss(name, known)}")


def pipeline_names(folder: Path) -> list[str]:
    """Return the names of the folders that hold a `pipeline.yaml`, sorted."""
    return sorted(path.parent.name for path in folder.glob(f"*/{SPEC_FILE}"))


def load_spec(name: str, folder: Path) -> Spec:
    """Read the spec of one pipeline.

    Raises:
        PipelineNotFoundError: there is no such folder.
        SpecError: the file is not a valid spec.
    """
    path = folder / name / SPEC_FILE
    if not path.is_file() or path.parent.parent != folder:
        raise PipelineNotFoundError(name, folder, pipeline_names(folder))
    return parse_spec(name, path.read_text(), path.parent)


def iter_specs(folder: Path) -> Iterator[Spec | SpecError]:
    """Yield every pipeline's spec, or the error that keeps it from being one; a broken spec stops no other."""
    for name in pipeline_names(folder):
        try:
            yield load_spec(name, folder)
        except SpecError as error:
            yield error


def parse_spec(name: str, text: str, folder: Path | None = None) -> Spec:
    """Parse the text of a `pipeline.yaml`; `folder` is where its SQL file is looked up.

    Raises:
        SpecError: with every fault of the text.
    """
    content = _parse_yaml(name, text)
    if "name" in content:
        raise SpecError(name, [Problem("name", "unknown key: the folder's name is the pipeline's name.")])
    features = content.get("features")
    if isinstance(features, dict):
        if "query" in features:
            raise SpecError(name, [Problem("features.query", f"unknown key. {near_miss('sql', ['sql'])}")])
        content = {**content, "features": {**features, "query": _read_sql(name, features.get("sql"), folder)}}
    try:
        return Spec.model_validate({**content, "name": name})
    except ValidationError as error:
        raise SpecError(name, [_problem(name, item) for item in error.errors()]) from error


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of `pipeline.yaml`, for editors."""
    schema = copy.deepcopy(Spec.model_json_schema())
    for part in (schema, *schema["$defs"].values()):
        properties = part.get("properties", {})
        for key in [key for key, value in properties.items() if value.get("hidden")]:
            del properties[key]
            if key in part.get("required", []):
                part["required"].remove(key)
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "nightscore pipeline"
    schema["description"] = "A scoring pipeline of nightscore."
    return schema


def _parse_yaml(name: str, text: str) -> dict[str, Any]:
    try:
        content = yaml.load(text, Loader=_UniqueKeys)  # noqa: S506 - a SafeLoader that also refuses repeated keys
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        raise SpecError(name, [Problem("", f"not valid YAML{where}: {shorten(error.problem)}")]) from error
    except yaml.YAMLError as error:
        raise SpecError(name, [Problem("", f"not valid YAML: {shorten(error)}")]) from error
    if not isinstance(content, dict):
        raise SpecError(name, [Problem("", "a spec is a mapping with at least features, model and predictions")])
    return content


class _UniqueKeys(yaml.SafeLoader):
    """A safe loader that refuses a key given twice, of which YAML would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[object] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, (str, int, float, bool)) and key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is given twice", key_node.start_mark
                )
            seen.add(key if isinstance(key, (str, int, float, bool)) else id(key_node))
        return super().construct_mapping(node, deep)


def _read_sql(name: str, file: object, folder: Path | None) -> str | None:
    if not isinstance(file, str):
        return None
    if folder is None or ".." in Path(file).parts or not (folder / file).is_file():
        there = sorted(path.name for path in folder.glob("*.sql")) if folder else []
        raise SpecError(
            name, [Problem("features.sql", f"there is no file {shorten(file)!r}. {near_miss(file, there)}")]
        )
    query = (folder / file).read_text().strip().rstrip(";")
    if not query:
        raise SpecError(name, [Problem("features.sql", f"the file {file!r} is empty.")])
    return query


def _problem(name: str, item: Mapping[str, Any]) -> Problem:
    # pydantic puts the tags of a union and of validators among the keys; only what the file holds is a path.
    location = [part for part in item["loc"] if not (isinstance(part, str) and ("[" in part or part == "Schedule"))]
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")
    kind = item["type"]
    if kind == "extra_forbidden":
        parent = ".".join(str(part) for part in location[:-1] if isinstance(part, str))
        part = _PARTS.get(parent)
        allowed = [key for key in part.model_fields if key not in _HIDDEN] if part else []
        return Problem(path, f"unknown key. {near_miss(str(location[-1]), allowed)}")
    if kind == "missing":
        return Problem(path, "is required.")
    if kind == "string_pattern_mismatch" and path == "name":
        return Problem("", f"the folder's name {name!r} must match {PIPELINE_NAME}.")
    return Problem(path, _sentence(path, kind, item["msg"], item.get("input")))


def _sentence(path: str, kind: str, message: str, found: object) -> str:
    if kind == "string_pattern_mismatch":
        return f"{shorten(found)!r} {_wanted(path)}"
    if kind == "value_error":
        return f"{message.removeprefix('Value error, ')}."
    if isinstance(found, (dict, list)):
        shown = "a mapping" if isinstance(found, dict) else "a list"
    else:
        shown = shorten(repr(found))
    if kind == "tuple_type":
        return f"must be a list, found {shown}."
    return f"{message[0].lower()}{message[1:]}, found {shown}."


def _wanted(path: str) -> str:
    last = path.rsplit(".", 1)[-1]
    if last == "table":
        return "is not a table: write dataset.table or project.dataset.table, without a $partition."
    if last == "sql":
        return "is not a file beside pipeline.yaml: write a relative path ending in .sql."
    if last == "expect":
        return "is not an expectation: write Great Expectations' name, like expect_column_values_to_not_be_null."
    if path.startswith("model."):
        return "is not a name: use lower-case letters, digits, - and _."
    return "is not a column: use letters, digits and _, and begin with a letter or _."
