"""What must hold of any staged predictions, whatever the spec says: by one look at the table and one scan."""

from collections.abc import Iterator, Mapping
from typing import Any

from nightscore.errors import listed
from nightscore.gates.expectations import Verdict
from nightscore.prediction_schema import column_faults, prediction_columns
from nightscore.run import Run

SUM_TOLERANCE = 1e-6  # of a row's class probabilities; a softmax in single precision is off by 1e-7 a class


def soundness(run: Run, task: str, figures: Mapping[str, Any]) -> list[Verdict]:
    """Return whether the staged predictions have the right columns, and values that a model can have meant.

    A score is finite; class probabilities lie within 0 and 1 and sum to 1; not all rows have the same prediction.

    Args:
        run: the run; its predictions are staged.
        task: what the model predicts.
        figures: what `scoring.score.combine` made of the predictions.
    """
    if task == "multiclass":
        labels = figures.get("labels") or {"": 0}
        return [
            _schema(run, task),
            *_classes(run),
            _sameness(run, "prediction", max(labels.values()), sum(labels.values())),
        ]
    return [_schema(run, task), *_values(run, task)]


def _schema(run: Run, task: str) -> Verdict:
    plan = run.plan
    wanted = prediction_columns(plan.model.name, plan.key_types, run.spec.features.partition, task)
    tables = (run.warehouse.find_table(name) for name in (run.staging_table, run.spec.predictions.table))
    faults = [fault for table in tables if table is not None for fault in column_faults(table, wanted)]
    return Verdict(
        expectation="schema",
        column="",
        severity="critical",
        passed=not faults,
        observed=listed(faults) if faults else "as wanted",
        wanted="the columns of the predictions table",
        built_in=True,
    )


def _values(run: Run, task: str) -> Iterator[Verdict]:
    value = "score" if task == "binary" else "prediction"
    [row] = run.warehouse.query(
        "SELECT SUM(n) AS found, MAX(n) AS most,\n"
        "  SUM(IF(value IS NULL OR IS_NAN(value) OR IS_INF(value), n, 0)) AS bad\n"
        f"FROM (SELECT `{value}` AS value, COUNT(*) AS n\n"
        f"  FROM {run.warehouse.quoted(run.staging_table)} GROUP BY value)",
        doing=f"checking the predictions of {run.spec.name}",
        labels=run.plan.labels,
        max_bytes_billed=run.spec.limits.max_bytes_billed,
    ).rows
    rows, bad = int(row["found"] or 0), int(row["bad"] or 0)
    yield Verdict(
        expectation="predictions_are_finite",
        column=value,
        severity="critical",
        passed=not bad,
        observed=f"{bad:,} NULL, NaN or infinite",
        wanted="finite numbers",
        rows=rows,
        failing_rows=bad,
        built_in=True,
    )
    yield _sameness(run, value, int(row["most"] or 0), rows)


def _classes(run: Run) -> Iterator[Verdict]:
    [row] = run.warehouse.query(
        "SELECT COUNT(*) AS found, COUNTIF(NOT ABS(total - 1) <= @tolerance OR NOT (least >= 0 AND most <= 1)) AS bad\n"
        "FROM (SELECT (SELECT SUM(p.probability) FROM UNNEST(probabilities) AS p) AS total,\n"
        "    (SELECT MIN(p.probability) FROM UNNEST(probabilities) AS p) AS least,\n"
        "    (SELECT MAX(p.probability) FROM UNNEST(probabilities) AS p) AS most\n"
        f"  FROM {run.warehouse.quoted(run.staging_table)})",
        {"tolerance": SUM_TOLERANCE},
        doing=f"checking the probabilities of {run.spec.name}",
        labels=run.plan.labels,
        max_bytes_billed=run.spec.limits.max_bytes_billed,
    ).rows
    bad = int(row["bad"])
    yield Verdict(
        expectation="probabilities_are_sound",
        column="probabilities",
        severity="critical",
        passed=not bad,
        observed=f"{bad:,} rows otherwise",
        wanted="within 0 and 1, summing to 1",
        rows=int(row["found"]),
        failing_rows=bad,
        built_in=True,
    )


def _sameness(run: Run, value: str, most: int, rows: int) -> Verdict:
    """Return the verdict on the share of the most frequent prediction; all the same stops a run of several rows."""
    share, limit = most / rows if rows else 0.0, run.spec.checks.max_same_score
    constant = rows > 1 and most == rows
    passed = not constant and share <= max(limit, 1 / max(rows, 1))
    return Verdict(
        expectation="max_same_score",
        column=value,
        severity="critical" if constant else "warning",
        passed=passed,
        observed=f"{share:.2%} of the rows have one and the same",
        wanted=f"at most {limit:.2%}",
        rows=rows,
        failing_rows=0 if passed else most,
    )
