"""The columns of the predictions table: what a model's predictions need, and whether an existing table has them."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from nightscore.errors import ConfigurationError, listed, near_miss, shorten
from nightscore.spec import Spec
from nightscore.warehouse import Column

if TYPE_CHECKING:
    from google.cloud import bigquery


class PredictionsTableError(ConfigurationError):
    """The predictions table exists and cannot hold these predictions."""


class PredictionColumnError(ConfigurationError):
    """A check is about a column that predictions do not have."""


def prediction_columns(model: str, key_types: Mapping[str, str], partition: str, task: str) -> tuple[Column, ...]:
    """Return the columns of the predictions table.

    Args:
        model: the model's name, for the descriptions.
        key_types: name → GoogleSQL type of the keys.
        partition: the partition column.
        task: what the model predicts: `binary`, `multiclass` or `regression`.
    """
    keys = [Column(name, kind, "REQUIRED", "Key of the scored row.") for name, kind in key_types.items()]
    if task == "binary":
        values = [Column("score", "FLOAT64", "REQUIRED", f"Probability of the positive class by {model}.")]
    elif task == "regression":
        values = [Column("prediction", "FLOAT64", "REQUIRED", f"Value predicted by {model}.")]
    else:
        pair = (
            Column("label", "STRING", "NULLABLE", "A class."),
            Column("probability", "FLOAT64", "NULLABLE", "Its probability."),
        )
        values = [
            Column("prediction", "STRING", "REQUIRED", f"Most probable class by {model}."),
            Column("probabilities", "STRUCT", "REPEATED", "Every class and its probability.", pair),
        ]
    return (
        *keys,
        Column(partition, "DATE", "REQUIRED", "Scoring date: the partition."),
        *values,
        Column("model_version", "STRING", "REQUIRED", "Model and version that predicted: name/version."),
        Column("run_id", "STRING", "REQUIRED", "Run that published the row."),
        Column("scored_at", "TIMESTAMP", "REQUIRED", "When the run was planned."),
    )


def require_checked_columns(spec: Spec, columns: Sequence[Column]) -> None:
    """Check that the prediction checks are about columns that predictions have.

    Raises:
        PredictionColumnError: one is not; names the near miss.
    """
    there = [column.name for column in columns]
    for index, item in enumerate(spec.checks.predictions):
        for name in item.reads:
            if name.lower() not in {column.lower() for column in there}:
                raise PredictionColumnError(
                    f"{spec.name}: checks.predictions[{index}].{item.expect}: predictions have no column "
                    f"{shorten(name)!r}. {near_miss(name, there)}"
                )


def require_table_fits(spec: Spec, table: "bigquery.Table", columns: Sequence[Column], name: str | None = None) -> None:
    """Check that an existing predictions table can take these columns.

    Raises:
        PredictionsTableError: it cannot; names what is in the way.
    """
    if faults := table_faults(table, spec.features.partition, columns):
        raise PredictionsTableError(
            f"{spec.name}: predictions.table: {name or spec.predictions.table} exists and cannot hold these "
            f"predictions: {listed(faults)}. Name another table, or change this one."
        )


def table_faults(table: "bigquery.Table", partition: str, columns: Sequence[Column]) -> list[str]:
    """Return what keeps an existing table from taking these columns; further columns must be NULLABLE."""
    faults = column_faults(table, columns)
    if table.time_partitioning is None or table.time_partitioning.field != partition:
        faults.append(f"it is not partitioned by day on {partition}")
    return faults


def column_faults(table: "bigquery.Table", columns: Sequence[Column]) -> list[str]:
    """Return in what an existing table's columns differ from these; further columns must be NULLABLE."""
    there = {field.name.lower(): Column.from_api(field) for field in table.schema}
    faults: list[str] = []
    for column in columns:
        found = there.pop(column.name.lower(), None)
        if found is None:
            faults.append(f"the column {column.name} ({column.type}) is missing")
        elif (found.type, found.mode == "REPEATED") != (column.type, column.mode == "REPEATED"):
            faults.append(f"the column {column.name} is {found.type} and not {column.type}")
    faults.extend(f"the column {c.name} is REQUIRED and has no value" for c in there.values() if c.mode == "REQUIRED")
    return faults
