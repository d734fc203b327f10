"""Reading specs. Malformed ones are files whose first lines, as comments, are the whole message."""

import json
import subprocess
import sys
from collections.abc import Mapping
from itertools import takewhile
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from nightscore import specs
from nightscore.spec import Spec
from nightscore.specs import (
    MOST_PROBLEMS,
    SPEC_FILE,
    PipelineNotFoundError,
    SpecError,
    iter_specs,
    json_schema,
    load_spec,
    parse_spec,
    pipeline_names,
    shared_tables,
)

HERE = Path(__file__).parent / "specs"
MALFORMED = sorted((HERE / "malformed").glob("*.yaml"))
VALID = sorted((HERE / "valid").glob("*.yaml"))
UNKNOWN_KEYS = [path for path in MALFORMED if path.stem.startswith("unknown_key")]

HEAVY = (
    "pandas",
    "numpy",
    "pyarrow",
    "google.api_core",
    "sklearn",
    "skops",
    "great_expectations",
    "airflow",
    "requests",
    "grpc",
)


def stem(path: Path) -> str:
    return path.stem


def test_the_cases_are_found() -> None:
    assert len(MALFORMED) >= 90
    assert len(VALID) >= 5
    assert len(UNKNOWN_KEYS) >= 13


@pytest.mark.parametrize("path", MALFORMED, ids=stem)
def test_malformed(path: Path) -> None:
    text = path.read_text()
    expected = [line[2:] for line in takewhile(lambda line: line.startswith("# "), text.splitlines())]
    assert expected, "the file does not say what to expect"
    with pytest.raises(SpecError) as caught:
        parse_spec("cards", text, path.parent)
    assert str(caught.value).splitlines() == expected
    assert caught.value.pipeline == "cards"
    assert len(caught.value.problems) >= min(len(expected), MOST_PROBLEMS)
    assert all(len(line) < 300 for line in expected), "a message is not bounded"


@pytest.mark.parametrize("path", VALID, ids=stem)
def test_valid(path: Path) -> None:
    spec = parse_spec("cards", path.read_text(), path.parent)
    assert spec.name == "cards"
    assert Spec.model_validate(json.loads(spec.model_dump_json())) == spec


@pytest.mark.parametrize("path", [*VALID, *MALFORMED], ids=stem)
def test_libyaml_reads_what_python_does(path: Path) -> None:
    """Which of them a machine has must not decide what a spec says; what libyaml refuses, the other reads again."""
    assert specs._FastUniqueKeys is not None, "libyaml is not there"
    slow, fast = (yaml_outcome(path.read_text(), loader) for loader in (specs._UniqueKeys, specs._FastUniqueKeys))
    assert fast in (slow, "a fault") or "\t" in path.read_text(), "a text with tabs goes to the other loader"


@pytest.mark.parametrize("opener", ["[", "{a: ", "- ", "? ", "-\t", "[{"])
def test_nesting_without_end_is_a_fault_and_no_crash(opener: str) -> None:
    """libyaml's recursion is that of C: a hundred thousand brackets would end the process."""
    program = (
        "from nightscore.specs import SpecError, parse_spec\n"
        f"try: parse_spec('cards', {opener!r} * 200_000)\n"
        "except SpecError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert done.stdout.startswith("cards: ")


def test_libyaml_refuses_what_python_reads() -> None:
    """Why a fault of the one is left to the other; when both agree, that can go."""
    text = "{a: 1, b:}"
    assert yaml_outcome(text, specs._FastUniqueKeys) == "a fault"
    assert specs._load_yaml(text) == {"a": 1, "b": None}


def yaml_outcome(text: str, loader: Any) -> object:
    """Return what a loader makes of a text; of a fault, only that it is one."""
    try:
        return repr(yaml.load(text, Loader=loader))  # as a text, for NaN is not NaN
    except (yaml.YAMLError, ValueError, RecursionError):
        return "a fault"


def test_every_value_of_a_spec() -> None:
    path = HERE / "valid" / "everything.yaml"
    found = parse_spec("cards", path.read_text(), path.parent).model_dump(mode="json")
    assert found == {
        "name": "cards",
        "description": "Probability that a card account defaults next month.\n\n"
        "**Triage:** call the data team before the risk team.\n",
        "owner": "risk-ml",
        "schedule": {"cron": "30 2 * * 1-5", "after": None, "timezone": "Europe/Amsterdam", "offset": -1},
        "features": {
            "table": "my-project.features.card_accounts",
            "sql": None,
            "partition": "snapshot_date",
            "keys": ["account_id", "product"],
            "reject": {
                "impossible_age": "age NOT BETWEEN 18 AND 110",
                "no_limit": {"when": "limit_bal IS NULL", "max_rejected": 100},
            },
            "wait": {
                "timeout": "3h",
                "every": "5m",
                "until": [
                    "rows >= 1000000",
                    "partition modified after 01:00",
                    "ops.loads_done has row where state = 'ok' and job = @partition",
                ],
            },
            "query": None,
        },
        "model": {
            "source": None,
            "name": "credit_default",
            "alias": "champion",
            "version": None,
            "challengers": ["challenger", 7],
        },
        "checks": {
            "features": [
                {"expect": "expect_table_row_count_to_be_between", "severity": "critical", "min_value": 1000},
                {
                    "expect": "expect_column_values_to_not_be_null",
                    "severity": "warning",
                    "column": "limit_bal",
                    "mostly": 0.99,
                },
            ],
            "predictions": [
                {
                    "expect": "expect_column_mean_to_be_between",
                    "severity": "critical",
                    "column": "score",
                    "min_value": 0.05,
                    "max_value": 0.6,
                }
            ],
            "max_rejected": 0.01,
            "max_same_score": 0.5,
            "compare": {
                "rows": {"warn": 0.2, "stop": 0.5},
                "mean": {"warn": 0.25, "stop": None},
                "psi": {"warn": 0.1, "stop": 0.25},
            },
            "warnings": "hold",
        },
        "predictions": {"table": "predictions.credit_default", "threshold": 0.5},
        "limits": {
            "max_bytes_billed": 200_000_000_000,
            "max_rows": 2_000_000,
            "shards": 4,
            "parallel_shards": 2,
        },
        "evidence": {
            "slices": ["education", "marriage"],
            "outcomes": {
                "table": "features.card_outcomes",
                "column": "defaulted",
                "partition": "day",
                "positive": 1,
            },
        },
        "promotion": {
            "min_nights": 7,
            "max_flips": 0.02,
            "max_auc_loss": 0.005,
            "confidence": 0.99,
            "max_psi": 0.25,
            "approvers": ["alice"],
            "timeout": "36h",
        },
        "resources": {
            "score": {"cpu": "4", "memory": "8Gi", "ephemeral_storage": "10Gi"},
            "rest": {"cpu": "500m", "memory": "1.5Gi", "ephemeral_storage": None},
        },
        "deadline": "06:00",
        "keep": "14d",
    }


def test_the_query_is_read_with_the_spec() -> None:
    path = HERE / "valid" / "from_sql.yaml"
    features = parse_spec("cards", path.read_text(), path.parent).features
    assert features.query == (
        "SELECT account_id, snapshot_date, age\nFROM features.card_accounts\nWHERE snapshot_date = @partition"
    )


def test_a_merge_key_gives_way_to_the_key_itself() -> None:
    path = HERE / "valid" / "with_anchors.yaml"
    first, second = parse_spec("cards", path.read_text()).checks.features
    assert (first.columns, second.columns, second.severity) == (("age",), ("limit_bal",), "warning")


def test_a_tag_runs_nothing(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    with pytest.raises(SpecError, match="could not determine a constructor"):
        parse_spec("cards", f"owner: !!python/object/apply:os.mkdir [{canary}]\n")
    assert not canary.exists()


def write(folder: Path, name: str, text: str) -> None:
    (folder / name).mkdir()
    (folder / name / SPEC_FILE).write_text(text)


@pytest.fixture
def pipelines(tmp_path: Path) -> Path:
    """Two pipelines, a broken one between them, and a folder that is none."""
    good = (HERE / "valid" / "minimal.yaml").read_text()
    for name in ("cards", "loans"):
        write(tmp_path, name, good)
    write(tmp_path, "cars", "owner: 2026-13-45\n")
    (tmp_path / "notes").mkdir()
    return tmp_path


def test_a_broken_spec_stops_no_other(pipelines: Path) -> None:
    assert pipeline_names(pipelines) == ["cards", "cars", "loans"]
    cards, cars, loans = iter_specs(pipelines)
    assert isinstance(cards, Spec)
    assert isinstance(cars, SpecError)
    assert isinstance(loans, Spec)
    assert (cards.name, cars.pipeline, loans.name) == ("cards", "cars", "loans")


def test_pipelines_that_would_delete_each_others_rows_are_told() -> None:
    text = (HERE / "valid" / "minimal.yaml").read_text()
    one, two = parse_spec("cards", text), parse_spec("loans", text)
    table = one.predictions.table
    assert shared_tables([one]) == {}
    assert shared_tables([one, two]) == {
        "cards": f"cards: predictions.table: loans publishes into {table} as well.",
        "loans": f"loans: predictions.table: cards publishes into {table} as well.",
    }
    beside = two.model_copy(
        update={"predictions": two.predictions.model_copy(update={"table": f"{table.upper()}_shadow"})}
    )
    assert shared_tables([one, beside]) == {}
    challenged = one.model_copy(update={"model": one.model.model_copy(update={"challengers": ("challenger",)})})
    assert shared_tables([challenged, beside]) == {
        "cards": f"cards: predictions.table: loans publishes into {table}_shadow as well.",
        "loans": f"loans: predictions.table: cards publishes into {table}_shadow as well.",
    }


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("card", "Did you mean `cards`?"),
        ("notes", "Allowed: cards, cars, loans."),
        ("../cards", "Did you mean `cards`?"),
        ("x" * 5000, "Allowed: cards, cars, loans."),
    ],
    ids=["near", "without_spec", "outside", "long"],
)
def test_no_such_pipeline(pipelines: Path, name: str, hint: str) -> None:
    with pytest.raises(PipelineNotFoundError) as caught:
        load_spec(name, pipelines)
    assert str(caught.value).endswith(f"in {pipelines}. {hint}")
    assert len(str(caught.value)) < 400 + len(str(pipelines))


@pytest.mark.parametrize("name", ["Cards", "1cards", "ca-rds", "c" * 64])
def test_the_name_of_the_folder_is_checked(tmp_path: Path, name: str) -> None:
    write(tmp_path, name, (HERE / "valid" / "minimal.yaml").read_text())
    with pytest.raises(SpecError) as caught:
        load_spec(name, tmp_path)
    assert str(caught.value) == f"{name}: the folder's name {name!r} must match [a-z][a-z0-9_]{{0,62}}."


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    write(tmp_path, "cards", "")
    (tmp_path / "cards" / SPEC_FILE).write_bytes(b"owner: \xff\xfe")
    with pytest.raises(SpecError) as caught:
        load_spec("cards", tmp_path)
    assert str(caught.value) == "cards: the file 'pipeline.yaml' is not UTF-8 text."


def test_a_query_that_is_no_text(tmp_path: Path) -> None:
    write(tmp_path, "cards", (HERE / "valid" / "from_sql.yaml").read_text())
    (tmp_path / "cards" / "queries").mkdir()
    (tmp_path / "cards" / "queries" / "accounts.sql").write_bytes(b"SELECT '\xe9'")
    with pytest.raises(SpecError) as caught:
        load_spec("cards", tmp_path)
    assert str(caught.value) == "cards: features.sql: the file 'accounts.sql' is not UTF-8 text."


class _Editor:
    """What an editor does with the schema."""

    def __init__(self) -> None:
        self.validator = jsonschema.Draft202012Validator(json_schema())

    def accepts(self, path: Path) -> bool:
        return self.validator.is_valid(yaml.safe_load(path.read_text()))


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema())


@pytest.mark.parametrize("path", VALID, ids=stem)
def test_the_schema_accepts(path: Path) -> None:
    assert _Editor().accepts(path)


@pytest.mark.parametrize("path", UNKNOWN_KEYS, ids=stem)
def test_the_schema_rejects_unknown_keys(path: Path) -> None:
    assert not _Editor().accepts(path)


def properties(schema: Mapping[str, Any]) -> dict[str, set[str]]:
    parts = {"Spec": schema, **schema["$defs"]}
    return {name: set(part["properties"]) for name, part in parts.items()}


def test_the_schema_hides_what_no_file_may_hold() -> None:
    found = properties(json_schema())
    assert "name" not in found["Spec"]
    assert "query" not in found["Features"]
    assert "name" in found["ModelReference"], "a model's name is no internal field"
    assert json_schema()["required"] == ["features", "model", "predictions"]


def test_the_schema_describes_every_key() -> None:
    bare = [
        f"{name}.{key}"
        for name, part in {"Spec": json_schema(), **json_schema()["$defs"]}.items()
        for key, value in part["properties"].items()
        if "description" not in value and "$ref" not in value
    ]
    assert bare == []


def test_parsing_a_spec_imports_nothing_heavy() -> None:
    path = HERE / "valid" / "everything.yaml"
    program = (
        "import sys; from pathlib import Path; from nightscore.specs import parse_spec; "
        f"parse_spec('cards', Path({str(path)!r}).read_text()); "
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
