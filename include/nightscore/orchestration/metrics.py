"""Events as metrics of Airflow: whatever Airflow's own metrics go to, OpenTelemetry or StatsD, gets these too."""

from nightscore.events import Entry, subscribe

PREFIX = "nightscore"

# Gauges, and no counters: a task's process lives for one run, and what it has counted would begin anew with the next.
GAUGES = {
    "run_ended": {
        "rows_scored": "rows",
        "rows_per_second": "rows_per_second",
        "bytes_billed": "bytes_billed",
    },
    "run_planned": {"queue_delay_seconds": "queue_delay"},
}


def measure() -> None:
    """Have every event of this process measured from now on."""
    subscribe(_measure)


def _measure(entry: Entry) -> None:
    from airflow.sdk.observability import stats

    event = entry.payload
    tags = {"pipeline": event["pipeline"]}
    if model := event.get("model_version"):
        tags["model"] = model.rpartition("/")[0]
    for field, name in GAUGES.get(event["event"], {}).items():
        if field in event:
            stats.gauge(f"{PREFIX}.{name}", event[field], tags=tags)
    if event["event"] == "gate_judged":
        stats.incr(f"{PREFIX}.gate", tags={**tags, "gate": event["gate"], "result": event["verdict"]})
    elif event["event"] == "run_ended":
        stats.incr(f"{PREFIX}.run", tags={**tags, "status": event["status"]})
