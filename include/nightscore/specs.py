"""Reading specs: YAML in, frozen `Spec` out, and one sentence for every fault.

Every message begins with the pipeline's name and the path of the key, says what was found and names the near miss.
"""

import contextlib
import copy
import datetime as dt
import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from nightscore.errors import ConfigurationError, listed, near_miss, shorten
from nightscore.names import PIPELINE_NAME, SQL_FILE
from nightscore.spec import (
    Checks,
    Compare,
    Evidence,
    Features,
    Levels,
    Limits,
    ModelReference,
    Outcomes,
    Part,
    Predictions,
    Promotion,
    Resources,
    Rule,
    Schedule,
    Spec,
    SuiteFile,
    TaskResources,
    Wait,
)
from nightscore.spec_values import span_text
from nightscore.suites import SuiteError, read_suite

SPEC_FILE = "pipeline.yaml"
MOST_PROBLEMS = 12

# Where a key is unknown, these are the words it could have been.
_PARTS: Mapping[str, type[BaseModel]] = {
    "": Spec,
    "schedule": Schedule,
    "features": Features,
    "features.wait": Wait,
    "model": ModelReference,
    "checks": Checks,
    "checks.compare": Compare,
    "checks.features": SuiteFile,
    "checks.predictions": SuiteFile,
    "predictions": Predictions,
    "limits": Limits,
    "evidence": Evidence,
    "evidence.outcomes": Outcomes,
    "promotion": Promotion,
    "resources": Resources,
    "resources.score": TaskResources,
    "resources.rest": TaskResources,
}

# What pydantic says of a value of the wrong kind, in the words of a YAML file.
_KINDS: Mapping[str, str] = {
    "string_type": "must be text",
    "model_type": "must be a mapping",
    "dict_type": "must be a mapping",
    "tuple_type": "must be a list",
    "budget_share": "must be a share between 0 and 1, or a number of rows",
    "budget_type": "must be a share like 1% or 0.01, or a number of rows",
    "positive_type": "must be TRUE, a whole number or text",
    "reference_type": "must be an alias or a version number",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "too_short": "must hold at least {min_length}",
    "too_long": "must hold at most {max_length}",
    "string_too_short": "must not be empty",
    "string_too_long": "must be at most {max_length:,} characters long",
    "literal_error": "must be {expected}",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "less_than": "must be less than {lt}",
}

# The bounds of time spans, which pydantic gives as Python's objects.
_SPANS: Mapping[str, Mapping[str, str]] = {
    "keep": {"gt": "0d", "le": "3650d"},
    "features.wait.timeout": {"gt": "0s", "le": "7d"},
    "promotion.timeout": {"gt": "0s", "le": "30d"},
    "features.wait.every": {"ge": "1s", "le": "1h"},
}


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
    # The folder is listed, so that a name is a folder's and no path, in its own spelling on every file system.
    there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if name not in there or not (folder / name / SPEC_FILE).exists():
        raise PipelineNotFoundError(name, folder, pipeline_names(folder))
    return _read_spec(name, folder)


def iter_specs(folder: Path) -> Iterator[Spec | SpecError]:
    """Yield every pipeline's spec, or the error that keeps it from being one; a broken spec stops no other."""
    for name in pipeline_names(folder):
        try:
            yield _read_spec(name, folder)
        except SpecError as error:
            yield error


def shared_tables(specs: Iterable[Spec]) -> dict[str, str]:
    """Return pipeline → a sentence for those that share a table: each would delete what the other published."""
    by_table: dict[str, list[str]] = {}
    for spec in specs:
        for table in spec.tables:
            by_table.setdefault(table.lower(), []).append(spec.name)
    return {
        name: f"{name}: predictions.table: {listed(n for n in names if n != name)} publishes into {table} as well."
        for table, names in by_table.items()
        if len(names) > 1
        for name in names
    }


def parse_spec(name: str, text: str, folder: Path | None = None) -> Spec:
    """Parse the text of a `pipeline.yaml`; `folder` is where its SQL file is looked up.

    Raises:
        SpecError: with every fault of the text.
    """
    content = _parse_yaml(name, text)
    problems: list[Problem] = []
    if "name" in content:
        problems.append(Problem("name", "unknown key: the folder's name is the pipeline's name."))
    features = content.get("features")
    if isinstance(features, dict):
        query: str | None = None
        if "query" in features:
            problems.append(Problem("features.query", f"unknown key. {near_miss('sql', ['sql'])}"))
        try:
            query = _read_sql(name, features.get("sql"), folder)
        except SpecError as error:
            problems.extend(error.problems)
        content = {**content, "features": {**features, "query": query}}
    checks = content.get("checks")
    if isinstance(checks, dict):
        content = {**content, "checks": _with_suites(name, checks, folder, problems)}
    cause: Exception | None = None
    try:
        spec = Spec.model_validate({**content, "name": name})
    except ValidationError as error:
        problems.extend(_problems(name, error))
        cause = error
    if problems:
        raise SpecError(name, problems) from cause
    return spec


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of `pipeline.yaml`, for editors."""
    schema = copy.deepcopy(Spec.model_json_schema())
    classes = {part.__name__: part for part in Part.__subclasses__()}
    for name, part in {"Spec": schema, **schema["$defs"]}.items():
        properties = part.get("properties", {})
        for key, meaning in _meanings(classes[name]).items():
            properties[key]["description"] = meaning
        for key in [key for key, value in properties.items() if value.get("hidden")]:
            del properties[key]
            if key in part.get("required", []):
                part["required"].remove(key)
        for value in properties.values():
            _drop_bounds(value)
    # As the file writes it, and not as the duration that it becomes.
    schema["properties"]["keep"]["default"] = f"{Spec.model_fields['keep'].default.days}d"
    schema["$defs"]["Wait"]["properties"]["every"]["default"] = span_text(Wait.model_fields["every"].default)
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "nightscore pipeline"
    schema["description"] = "A scoring pipeline of nightscore."
    return schema


def _meanings(part: type[Part]) -> dict[str, str]:
    """Return what the strings beneath a part's keys say: key → text."""
    import ast
    import inspect
    import itertools

    [definition] = ast.parse(inspect.getsource(part)).body
    found = {}
    for line, beneath in itertools.pairwise(getattr(definition, "body", [])):
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name) and isinstance(beneath, ast.Expr):
            found[line.target.id] = inspect.cleandoc(ast.literal_eval(beneath.value))
    return found


def _read_spec(name: str, folder: Path) -> Spec:
    path = folder / name / SPEC_FILE
    return parse_spec(name, _read_text(name, "", path), path.parent)


def _drop_bounds(value: dict[str, Any]) -> None:
    """Remove the bounds of values written as text: pydantic names them in words that no JSON Schema has."""
    for word in ("gt", "ge", "lt", "le"):
        value.pop(word, None)
    for option in value.get("anyOf", ()):
        _drop_bounds(option)


def _parse_yaml(name: str, text: str) -> dict[str, Any]:
    try:
        content = _load_yaml(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        words = str(error.problem).replace("but found another document", "a second document begins here")
        raise SpecError(name, [Problem("", f"not valid YAML{where}: {shorten(words)}.")]) from error
    except RecursionError as error:
        raise SpecError(name, [Problem("", "not valid YAML: lists are nested too deeply.")]) from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that no calendar has
        raise SpecError(name, [Problem("", f"not valid YAML: {shorten(' '.join(str(error).split()))}.")]) from error
    if not isinstance(content, dict):
        raise SpecError(name, [Problem("", "a spec is a mapping with at least features, model and predictions.")])
    return content


def _load_yaml(text: str) -> Any:
    """Return the text's content; by libyaml, where it is there and finds no fault, in a tenth of the time."""
    if _FastUniqueKeys is not None and _is_shallow(text) and "\t" not in text:
        # The other loader tells of a fault, in the same words on every machine, or sees none. About tabs alone libyaml
        # is the more lenient one.
        with contextlib.suppress(yaml.YAMLError, ValueError, RecursionError):
            return yaml.load(text, Loader=_FastUniqueKeys)  # noqa: S506 - a safe loader
    return yaml.load(text, Loader=_UniqueKeys)  # noqa: S506 - a safe loader


def _is_shallow(text: str) -> bool:
    """Tell whether lists and mappings are surely not nested by the thousand: libyaml would not raise but crash."""
    openers = sum(text.count(opener) for opener in "[{?")
    return len(text) < 1_000_000 and openers < 1_000 and all(line.count("-") < 1_000 for line in text.splitlines())


class _RefuseRepeatedKeys(yaml.constructor.SafeConstructor):
    """Constructs as a safe loader does, and refuses a key given twice, of which YAML would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[object] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, (str, int, float, bool)) and key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is given twice", key_node.start_mark
                )
            seen.add(key if isinstance(key, (str, int, float, bool)) else id(key_node))
        return super().construct_mapping(node, deep)


class _UniqueKeys(_RefuseRepeatedKeys, yaml.SafeLoader):
    """A safe loader in Python."""


_FastUniqueKeys: type[yaml.SafeLoader] | None = None
if hasattr(yaml, "CSafeLoader"):
    _FastUniqueKeys = type("_FastUniqueKeys", (_RefuseRepeatedKeys, yaml.CSafeLoader), {})


def _read_sql(name: str, file: object, folder: Path | None) -> str | None:
    if not isinstance(file, str) or not re.fullmatch(SQL_FILE, file):
        return None  # the spec says what is wrong with such a name; nothing is looked up by it
    if folder is None or not (folder / file).is_file():
        there = sorted(path.name for path in folder.glob("*.sql")) if folder else []
        hint = near_miss(file, there) if there else f"Put it beside {SPEC_FILE}."
        raise SpecError(name, [Problem("features.sql", f"there is no file {shorten(file)!r}. {hint}")])
    query = _read_text(name, "features.sql", folder / file).strip().rstrip(";")
    if not query:
        raise SpecError(name, [Problem("features.sql", f"the file {file!r} is empty.")])
    return query


def _with_suites(name: str, checks: dict[str, Any], folder: Path | None, problems: list[Problem]) -> dict[str, Any]:
    """Return the checks with the list of its expectations in place of every suite's file; add what is wrong."""
    found = dict(checks)
    for key in ("features", "predictions"):
        value = checks.get(key)
        if not isinstance(value, dict) or "expect" in value:  # which is one check without its list
            continue
        try:
            found[key] = _read_suite(name, f"checks.{key}", value, folder)
        except SpecError as error:
            problems.extend(error.problems)
            found[key] = []
    return found


def _read_suite(name: str, path: str, value: dict[str, Any], folder: Path | None) -> list[Any]:
    """Return the expectations of a suite's file and those beside it, as a list of the spec has them."""
    try:
        wanted = SuiteFile.model_validate(value)
    except ValidationError as error:
        items = [{**item, "loc": (*path.split("."), *item["loc"])} for item in error.errors()]
        raise SpecError(name, [_problem(name, item) for item in items]) from error
    if folder is None or not (folder / wanted.suite).is_file():
        there = sorted(item.name for item in folder.glob("*.json")) if folder else []
        hint = near_miss(wanted.suite, there) if there else f"Put it beside {SPEC_FILE}."
        raise SpecError(name, [Problem(f"{path}.suite", f"there is no file {shorten(wanted.suite)!r}. {hint}")])
    text = _read_text(name, f"{path}.suite", folder / wanted.suite)
    try:
        return [*read_suite(text), *wanted.also]
    except SuiteError as error:
        raise SpecError(name, [Problem(f"{path}.suite", f"the file {wanted.suite!r} {error}")]) from error


def _read_text(name: str, path: str, file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise SpecError(name, [Problem(path, f"the file {file.name!r} is not UTF-8 text.")]) from error


def _problems(name: str, error: ValidationError) -> list[Problem]:
    items = error.errors()
    # pydantic counts only the items that are valid; where one is not, "too few" is said of a list that is long enough.
    faulty = {item["loc"][:-1] for item in items}
    return [_problem(name, item) for item in items if item["type"] != "too_short" or item["loc"] not in faulty]


def _problem(name: str, item: Mapping[str, Any]) -> Problem:
    location = [part for part in item["loc"] if part != "[key]"]  # pydantic's mark of a mapping's key
    parents, last = location[:-1], location[-1] if location else ""
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{shorten(part, 60)}" for part in location).lstrip(".")
    kind, found = item["type"], item.get("input")
    if kind == "extra_forbidden":
        return Problem(path, f"unknown key. {near_miss(str(last), _keys(_part(parents)))}")
    if kind == "invalid_key" or (kind == "string_type" and item["loc"][-1] == "[key]"):
        above = ".".join(str(parent) for parent in parents)
        return Problem(above, f"a key must be text, found {_shown(kind, found)}.")
    if kind == "missing":
        # Where further keys are allowed, a misspelt one is not an error of its own.
        near = difflib.get_close_matches(str(last), [key for key in found or () if isinstance(key, str)], n=1)
        return Problem(path, f"is required; found `{near[0]}`." if near and last == "expect" else "is required.")
    if kind == "string_pattern_mismatch" and path == "name":
        return Problem("", f"the folder's name {shorten(name)!r} must match {PIPELINE_NAME}.")
    return Problem(path, _sentence(path, item))


def _part(parents: Sequence[object]) -> type[BaseModel]:
    names = [str(parent) for parent in parents if isinstance(parent, str)]
    if names[:2] == ["features", "reject"]:
        return Rule
    return Levels if names[:2] == ["checks", "compare"] and len(names) == 3 else _PARTS[".".join(names)]


def _keys(part: type[BaseModel]) -> list[str]:
    return [
        key
        for key, field in part.model_fields.items()
        if not (isinstance(field.json_schema_extra, dict) and field.json_schema_extra.get("hidden"))
    ]


def _sentence(path: str, item: Mapping[str, Any]) -> str:
    kind, message, found = item["type"], item["msg"], item.get("input")
    if kind == "string_pattern_mismatch":
        return f"{shorten(found)!r} {_wanted(path)}"
    if kind == "value_error":
        return f"{message.removeprefix('Value error, ')}."
    if kind == "model_type" and path == "schedule":
        message = "must be a cron expression or a mapping"
    elif kind == "model_type" and path == "model":
        message = "must be a model like credit_default@champion or a mapping"
    elif kind == "model_type" and path.startswith("features.reject."):
        message = "must be a condition or a mapping"
    elif kind in _KINDS:
        message = _KINDS[kind].format(**_limits(path, item.get("ctx") or {}))
    else:
        message = f"{message[0].lower()}{message[1:]}"
    return f"{message}, found {_shown(kind, found)}."


def _limits(path: str, context: Mapping[str, Any]) -> dict[str, Any]:
    """Return a message's figures as the file writes them: a time span not as Python's object."""
    return {key: _SPANS.get(path, {}).get(key, value) for key, value in context.items()}


def _shown(kind: str, found: object) -> str:
    if found is None:
        return "nothing"
    if kind in ("too_short", "too_long") and isinstance(found, (list, tuple)):
        return str(len(found))
    if isinstance(found, (dict, list)):
        return "a mapping" if isinstance(found, dict) else "a list"
    return shorten(found if isinstance(found, dt.date) else repr(found))


def _wanted(path: str) -> str:
    last = path.rsplit(".", 1)[-1]
    if last == "table" or path == "schedule.after":
        return "is not a table: write dataset.table or project.dataset.table, without a $partition."
    if last == "suite" or path == "features.sql":
        ending = "sql" if last == "sql" else "json"
        return f"is not a file beside {SPEC_FILE}: write a relative path ending in .{ending}, without `..`."
    if last == "expect":
        return "is not an expectation: write Great Expectations' name, like expect_column_values_to_not_be_null."
    if path.startswith("model."):
        return "is not a name: use lower-case letters, digits, - and _, and begin with a letter."
    if path.startswith("features.reject."):
        return "is not a rule's name: use letters, digits and _, and begin with a letter or _."
    return "is not a column: use letters, digits and _, and begin with a letter or _."
