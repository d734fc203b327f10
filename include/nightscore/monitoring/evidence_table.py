"""The operations table `evidence`: a row for every figure, so that a dashboard needs no functions for JSON."""

import datetime as dt
from collections.abc import Iterator, Mapping
from typing import Any

from nightscore.objects import Json
from nightscore.operations import replace_rows
from nightscore.run import Services
from nightscore.spec import Spec

TABLE = "evidence"
METRICS = ("auc", "gini", "ks", "brier")
DECILE = "(decile)"  # in the place of a slice, of the rows of a calibration


def night_rows(record: Json, base: Mapping[str, Any]) -> list[Json]:
    """Return the table's rows of one night's record; `base` has `run_id`, `pipeline` and `partition_date`."""
    return [
        {**base, "scope": "night", "champion": record["champion"], "challenger": label, **row}
        for label, counted in record.get("challengers", {}).items()
        for row in _agreement(counted, counted["figures"])
    ]


def accumulated_rows(evidence: Json) -> list[Json]:
    """Return the table's rows of accumulated evidence, under the date of its last night; none without a night."""
    if not evidence["nights"]:
        return []
    base = {
        "run_id": None,
        "pipeline": evidence["pipeline"],
        "partition_date": evidence["nights"][-1]["partition"],
        "scope": "accumulated",
        "champion": evidence["champion"],
        "challenger": evidence["challenger"],
    }
    accumulated = evidence["accumulated"]
    rows = [{"metric": "nights", "value": len(evidence["nights"]), "rows": accumulated["figures"]["rows"]}]
    rows += _agreement(accumulated, accumulated["figures"])
    rows += _outcomes(evidence["outcomes"])
    return [{**base, **row} for row in rows]


def outcome_rows(evidence: Json) -> list[Json]:
    """Return the table's rows of what each night's outcomes say, under the date of the night."""
    base = {name: evidence[name] for name in ("pipeline", "champion", "challenger")}
    found = []
    for night in evidence["nights"]:
        outcomes = night["outcomes"]
        if outcomes is None or not outcomes["rows"]:
            continue
        own = {"run_id": night["run_id"], **base, "partition_date": night["partition"], "scope": "outcomes"}
        values = {f"{side}_{name}": outcomes[side][name] for side in ("champion", "challenger") for name in METRICS}
        found += [
            {**own, "metric": metric, "value": value, "rows": outcomes["rows"]} for metric, value in values.items()
        ]
    return found


def write_accumulated(services: Services, spec: Spec, evidence: Json) -> None:
    """Write what was gathered of two versions; without a night, do nothing.

    Accumulated rows replace those of the same last night. Rows of single nights' outcomes replace all of the two.

    Args:
        services: the deployment.
        spec: the pipeline.
        evidence: what `evidence.gather` returned.
    """
    rows = accumulated_rows(evidence)
    if not rows:
        return
    of = {name: evidence[name] for name in ("pipeline", "champion", "challenger")}
    last = dt.date.fromisoformat(rows[0]["partition_date"])
    for found, owned in (
        (rows, {**of, "scope": "accumulated", "partition_date": last}),
        (outcome_rows(evidence), {**of, "scope": "outcomes"}),
    ):
        replace_rows(
            services.warehouse,
            TABLE,
            found,
            owned,
            doing=f"recording the evidence of {spec.name}",
            job_key=None,
            labels={"nightscore_pipeline": spec.name[:63]},
        )


def _agreement(counted: Json, figures: Json) -> Iterator[Json]:
    total = figures["rows"]
    for metric, value in figures.items():
        if value is not None:
            yield {"metric": metric, "value": value, "rows": total}
    for metric, value in counted["counts"].items():
        if metric != "rows":
            yield {"metric": metric, "value": value, "rows": total}
    for name, values in counted["slices"].items():
        for text, counts in values.items():
            for metric, value in counts.items():
                yield {"slice": name, "slice_value": text, "metric": metric, "value": value, "rows": counts["rows"]}


def _outcomes(outcomes: Json) -> Iterator[Json]:
    if not outcomes["rows"]:
        return
    rows = outcomes["rows"]
    yield {"metric": "outcomes", "value": rows, "rows": rows}
    yield {"metric": "outcomes_positive", "value": outcomes["positives"], "rows": rows}
    for side in ("champion", "challenger", "difference"):
        for metric in METRICS:
            yield {"metric": f"{side}_{metric}", "rows": rows, **_bounds(outcomes[side][metric])}
        for item in outcomes[side].get("calibration", ()):
            within = {"slice": DECILE, "slice_value": str(item["decile"]), "rows": item["rows"]}
            yield {**within, "metric": f"{side}_predicted", "value": item["predicted"]}
            yield {**within, "metric": f"{side}_observed", **_bounds({**item, "value": item["observed"]})}
    for name in ("swapped_in", "swapped_out"):
        found = outcomes[name]
        if found is not None:
            yield {"metric": f"{name}_observed", "rows": found["rows"], **_bounds({**found, "value": found["rate"]})}


def _bounds(found: Mapping[str, Any]) -> Json:
    return {name: found[name] for name in ("value", "low", "high")}
