"""What a run would do, as one JSON object: what `nightscore plan` prints and the task `plan` writes into its log.

Its keys are documented in docs/plan.md, and are kept.
"""

import datetime as dt
import itertools
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from pydantic import ValidationError

from nightscore import __version__
from nightscore.assessment import Assessment
from nightscore.changes import differences
from nightscore.errors import ConfigurationError, NightscoreError, shorten
from nightscore.gates import feature_gate, prediction_gate
from nightscore.objects import Json
from nightscore.plan import Plan, read_plan, shards_of
from nightscore.progress import LoggedProgress
from nightscore.publications import iter_latest_publications, last_publication
from nightscore.records import RunRecords
from nightscore.registry.store import Version
from nightscore.run import Services, utc_now
from nightscore.source import LimitError
from nightscore.spec import Compare, Expectation, Levels, Spec
from nightscore.spec_values import budget_text
from nightscore.timing import due_at, expected, expected_seconds, next_start, past_runs
from nightscore.waiting import Watch, look_at

TIB = 2**40


def preview(found: Assessment, services: Services, *, dry_run: bool = False, start: dt.datetime | None = None) -> Json:
    """Return what a run would do.

    Args:
        found: what there is.
        services: the deployment: its records tell what was published before and how long that took.
        dry_run: the run scores and checks, and publishes nothing.
        start: when the run begins, with its zone; by default at the schedule's next tick.

    Raises:
        TransientError: a server failed.
    """
    spec, bucket = found.spec, services.bucket
    last, earlier = _first(iter_latest_publications(bucket, spec.name))
    runs = past_runs(bucket, spec.name, earlier)
    rows = found.source.rows if found.source else None
    begin = start or next_start(spec.schedule, utc_now())
    due = due_at(spec.schedule, found.partition, begin)
    time = expected(spec, begin, expected_seconds(runs, rows), len(runs), due)
    waits = _waits(found, services)
    return {
        "pipeline": spec.name,
        "partition": found.partition.isoformat(),
        "verdict": "blocked" if found.reasons else "ready",
        "exit_code": max((reason.exit_code for reason in found.reasons), default=0),
        "reasons": [_reason(reason) for reason in found.reasons],
        "warnings": [*_warnings(found, time), *_missing(waits)],
        "dry_run": dry_run,
        "source": {"table": spec.source, "rows": rows, "shards": shards_of(spec, rows), **_cost(found, services)},
        "model": None if found.version is None else _model(str(found.requested), found.version),
        "challengers": [_model(asked, version) for asked, version in found.challengers.items()],
        "left_out": found.left_out,
        "changes": _changes(found, services, last),
        "columns": [asdict(column) for column in found.columns],
        "row_rules": spec.features.rules,
        "checks": _checks(found),
        "waits_for": waits,
        "replaces": _replaces(found, services),
        "expected": time,
        "code_version": __version__,
    }


def _waits(found: Assessment, services: Services) -> list[Json]:
    """Return what a run will wait for before it begins, and what there is of it now."""
    wait = found.spec.features.wait
    if wait is None:
        return []
    watch = Watch(found.spec, found.partition, services.warehouse, LoggedProgress(), utc_now())
    told = []
    for condition in wait.conditions:
        try:
            sight = look_at(condition, watch)
            told.append({"condition": str(condition), "holds": sight.holds, "seen": sight.seen})
        except ConfigurationError as error:
            told.append({"condition": str(condition), "holds": False, "seen": str(error)})
    return told


def _missing(waits: Iterable[Json]) -> list[str]:
    return [f"features.wait: {item['condition']}: {item['seen']}" for item in waits if not item["holds"]]


def _first(publications: Iterable[Json]) -> tuple[Json | None, Iterable[Json]]:
    """Return the first publication, or None, and all of them."""
    items = iter(publications)
    last = next(items, None)
    return last, items if last is None else itertools.chain([last], items)


def _reason(reason: NightscoreError) -> Json:
    limit = {"key": reason.key, "found": reason.found, "limit": reason.limit} if isinstance(reason, LimitError) else {}
    return {
        "error": type(reason).__name__,
        "message": str(reason),
        "exit_code": reason.exit_code,
        "key": None,
        "found": None,
        "limit": None,
        **limit,
    }


def _warnings(found: Assessment, time: Json) -> list[str]:
    spec, version = found.spec, found.version
    warnings = [f"{spec.name}: model: {warning}" for warning in found.library_warnings]
    if time["late"]:
        warnings.append(
            f"{spec.name}: deadline: the run is expected to end at {time['ends_at']}, after {time['deadline_at']}."
        )
    if version is not None and spec.predictions.threshold is not None and version.manifest.task != "binary":
        task = version.manifest.task
        warnings.append(f"{spec.name}: predictions.threshold: {version.label} is a {task} model, which has no score.")
    return warnings


def _cost(found: Assessment, services: Services) -> Json:
    config, size = services.warehouse.config, found.bytes
    is_estimated = found.source is None or found.source.is_estimated
    return {
        "bytes": size,
        "bytes_from": None if size is None else "dry run" if is_estimated else "table metadata",
        "cost": None if size is None else round(size / TIB * config.price_per_tib, 6),
        "price_per_tib": config.price_per_tib,
        "currency": config.currency,
    }


def _model(asked: str, version: Version) -> Json:
    return {
        "requested": asked,
        "version": version.label,
        "digest": version.digest,
        "task": version.manifest.task,
        "estimator": version.manifest.estimator,
    }


def _changes(found: Assessment, services: Services, last: Json | None) -> Json:
    """Return how this run differs from the one that was published last: `since` and `fields`, None where there is none.

    `note` says why nothing can be compared.
    """
    if last is None:
        return {"since": None, "fields": [], "note": "no run of this pipeline was published yet"}
    since = {key: last[key] for key in ("run_id", "partition", "published_at", "kind")}
    try:
        before = read_plan(RunRecords(services.bucket, found.spec.name, last["run_id"]))
    except ValidationError:
        return {
            "since": since,
            "fields": None,
            "note": "its plan was written by a nightscore that this one cannot read",
        }
    if before is None:
        return {"since": since, "fields": None, "note": "its plan is gone"}
    after = _found(found)
    known = {key: value for key, value in _planned(before).items() if key in after}
    return {"since": since, "fields": differences(known, after), "note": None}


def _planned(before: Plan) -> Json:
    return {
        **_spec(before.spec),
        "model version": before.model.label,
        "model digest": before.model.digest,
        "challenger versions": [pinned.label for pinned in before.challengers],
        "code version": before.code_version,
        "columns": before.columns,
    }


def _found(found: Assessment) -> Json:
    """Return what a plan would hold, as far as it is known."""
    source, version = found.source, found.version
    content = {**_spec(source.spec if source else found.spec), "code version": __version__}
    if version is not None:
        content |= {"model version": version.label, "model digest": version.digest}
        content["challenger versions"] = [challenger.label for challenger in found.challengers.values()]
    if source is not None:
        content["columns"] = source.columns
    return content


def _spec(spec: Spec) -> dict[str, Any]:
    return spec.model_dump(mode="json", exclude={"name"})


def _checks(found: Assessment) -> Json:
    """Return what will be checked: `features` and `predictions`, in the order in which the gates report it."""
    spec, version = found.spec, found.version
    inputs, task = (version.manifest.inputs, version.manifest.task) if version else ((), None)
    columns = [column.name for column in found.columns]
    features = feature_gate.built_in(spec, columns, inputs)
    predictions = prediction_gate.built_in(spec, task) if task else []
    return {
        "features": [
            _told("max_rejected", f"at most {budget_text(spec.checks.max_rejected)}, and not all"),
            *(
                _told("max_rejected", f"at most {budget_text(rule.max_rejected)}", name)
                for name, rule in spec.features.reject.items()
                if rule.max_rejected is not None
            ),
            *(_check(item, built_in=True) for item in features),
            *(_check(item, built_in=False) for item in spec.checks.features),
        ],
        "predictions": [
            _told("scored rows", "every accepted row, staged once; sound values in the table's columns"),
            _told("max_same_score", f"at most {spec.checks.max_same_score:.2%}, and not all"),
            *_comparisons(spec, task),
            *(_check(item, built_in=True) for item in predictions),
            *(_check(item, built_in=False) for item in spec.checks.predictions),
        ],
    }


def _comparisons(spec: Spec, task: str | None) -> list[Json]:
    names = [name for name in Compare.model_fields if not (name == "mean" and task == "multiclass")]
    levels: dict[str, Levels] = {name: getattr(spec.checks.compare, name) for name in names}
    return [
        _told(f"compare_{name}", str(level), severity="warning" if level.stop is None else "critical")
        for name, level in levels.items()
        if level.warn is not None or level.stop is not None
    ]


def _told(what: str, wanted: str, *columns: str, severity: str = "critical") -> Json:
    return {"check": what, "columns": list(columns), "wanted": wanted, "severity": severity, "built_in": True}


def _check(item: Expectation, *, built_in: bool) -> Json:
    arguments = {key: value for key, value in item.arguments.items() if not key.startswith("column")}
    return {
        "check": item.expect,
        "columns": list(item.columns),
        "wanted": shorten(", ".join(f"{key} {value}" for key, value in arguments.items()) or "all rows"),
        "severity": item.severity,
        "built_in": built_in,
    }


def _replaces(found: Assessment, services: Services) -> Json:
    """Return what is live in the partition, and which run published it; None where it was none of ours."""
    last = last_publication(services.bucket, found.spec.name, found.partition) or {}
    return {
        "table": services.warehouse.full_name(found.spec.predictions.table),
        "exists": found.target.exists,
        "rows": found.target.rows,
        "run_id": last.get("run_id"),
        "model_version": last.get("model_version"),
        "published_at": last.get("published_at"),
    }
