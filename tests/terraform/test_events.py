"""Metrics, alerts and charts ask for events and fields that nightscore writes; alerts name a page that is there."""

import json
import re

import pytest

from terraform.conftest import ROOT
from terraform.plan import Plan

EVENTS = json.loads((ROOT / "include/nightscore/schemas/events.json").read_text())
OF_EVERY_EVENT = {"event", "pipeline", "partition", "run_id", "trace_id", "message"}
NUMBERS = ("integer", "number")


def faults(plan: Plan) -> list[str]:
    """Return what metrics ask for and no event holds."""
    found: list[str] = []
    for metric in plan.resources("google_logging_metric"):
        name, text = metric.values["name"], metric.values["filter"]
        [event] = re.findall(r'jsonPayload\.event="([a-z_]+)"', text) or [None]
        if event not in EVENTS:
            found.append(f"{name}: no event {event}")
            continue
        fields = EVENTS[event]["fields"]
        extractors = [*(metric.values["label_extractors"] or {}).values(), metric.values["value_extractor"] or ""]
        asked = re.findall(r"jsonPayload\.([a-z_]+)", " ".join([text, *extractors]))
        found += [f"{name}: {event} has no {it}" for it in asked if it not in fields and it not in OF_EVERY_EVENT]
        measured = re.findall(r"jsonPayload\.([a-z_]+)>", text) + re.findall(
            r"\(jsonPayload\.([a-z_]+)\)", extractors[-1]
        )
        found += [f"{name}: {it} is no number" for it in measured if fields.get(it, {}).get("type") not in NUMBERS]
        if (
            f'logName="projects/{plan.variables["project"]}/logs/{plan.outputs["settings"]["NIGHTSCORE_EVENTS_LOG"]}"'
            not in text
        ):
            found.append(f"{name}: looks into another log")
        labels = {it["key"] for it in metric.values["metric_descriptor"][0]["labels"]}
        if labels != set(metric.values["label_extractors"] or {}):
            found.append(f"{name}: labels and what is extracted differ")
        unit = metric.values["metric_descriptor"][0]["unit"]
        found += [
            f"{name}: {it} has another unit"
            for it in measured
            if metric.values["value_extractor"] and fields.get(it, {}).get("unit") != unit
        ]
    return found


def promql(plan: Plan) -> dict[str, str]:
    """Return every query of alerts and charts, by its title."""
    found = {
        item.key: condition["condition_prometheus_query_language"][0]["query"]
        for item in plan.resources("google_monitoring_alert_policy")
        for condition in item.values["conditions"]
    }
    for item in plan.resources("google_monitoring_dashboard"):
        for tile in json.loads(item.values["dashboard_json"])["mosaicLayout"]["tiles"]:
            for data in tile["widget"].get("xyChart", {}).get("dataSets", []):
                found[tile["widget"]["title"]] = data["timeSeriesQuery"]["prometheusQuery"]
    return found


def unknown(plan: Plan) -> list[str]:
    """Return the metrics, labels and values that queries ask for and that there are not."""
    metrics = {}
    for metric in plan.resources("google_logging_metric"):
        called = "logging_googleapis_com:user_" + re.sub(r"[^a-zA-Z0-9_]", "_", metric.values["name"])
        [event] = re.findall(r'jsonPayload\.event="([a-z_]+)"', metric.values["filter"])
        parts = ("_sum", "_count", "_bucket") if metric.values["value_extractor"] else ("",)
        metrics |= {called + part: (event, metric.values["label_extractors"]) for part in parts}
    found: list[str] = []
    for title, query in promql(plan).items():
        asked = re.findall(r"(logging_googleapis_com:\w+)\{([^}]*)\}", query)
        if not asked:
            found.append(f"{title}: asks for nothing")
        for name, labels in asked:
            if name not in metrics:
                found.append(f"{title}: no metric {name}")
                continue
            event, extracted = metrics[name]
            pairs = dict(re.findall(r'(\w+)!?="([^"]*)"', labels))
            if pairs.pop("monitored_resource", None) != "global":
                found.append(f"{title}: does not say of which resource {name} is")
            for label, value in pairs.items():
                values = EVENTS[event]["fields"].get(label, {}).get("values")
                if label not in extracted:
                    found.append(f"{title}: {name} has no label {label}")
                elif values and value not in values:
                    found.append(f"{title}: {label} is never {value}")
            grouped = re.findall(r"by \(([^)]*)\)", query)
            found += [
                f"{title}: groups by {it}" for group in grouped for it in group.split(", ") if it not in extracted
            ]
    return found


def test_metrics_ask_for_what_is_written(plan: Plan):
    assert len(plan.resources("google_logging_metric")) > 8
    assert faults(plan) == []


def test_queries_ask_for_metrics_that_there_are(plan: Plan):
    assert len(promql(plan)) >= 13
    assert unknown(plan) == []


@pytest.mark.parametrize(
    ("field", "to", "words"),
    [
        (
            "filter",
            'logName="projects/example-scoring-prod/logs/nightscore" AND jsonPayload.event="run_finished"',
            "no event",
        ),
        ("filter", 'jsonPayload.event="run_ended"', "another log"),
        ("filter", 'jsonPayload.event="run_ended" AND jsonPayload.bytes>1', "has no bytes"),
        ("filter", 'jsonPayload.event="run_ended" AND jsonPayload.status>1', "is no number"),
        ("label_extractors", {"pipeline": "EXTRACT(jsonPayload.pipe)"}, "has no pipe"),
        ("value_extractor", "EXTRACT(jsonPayload.status)", "is no number"),
    ],
)
def test_a_metric_of_what_is_not_written_is_noticed(plans: dict[str, Plan], field: str, to: object, words: str):
    def change(plan: Plan) -> None:
        plan.resources("google_logging_metric")[0].values[field] = to

    assert any(words in fault for fault in faults(plans["prod"].changed(change)))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("runs_ended", "runs_finished", "no metric"),
        ('status=\\"failed\\"', 'status=\\"broken\\"', "is never broken"),
        ('status=\\"failed\\"', 'state=\\"failed\\"', "has no label state"),
        ("by (pipeline)", "by (owner)", "groups by owner"),
        ('monitored_resource=\\"global\\"', 'monitored_resource=\\"k8s_container\\"', "of which resource"),
    ],
)
def test_a_query_of_what_there_is_not_is_noticed(plans: dict[str, Plan], old: str, new: str, words: str):
    def change(plan: Plan) -> None:
        for item in plan.resources("google_monitoring_alert_policy"):
            text = json.dumps(item.values)
            item.values.update(json.loads(text.replace(old, new).replace(json.dumps(old)[1:-1], json.dumps(new)[1:-1])))

    assert any(words in fault for fault in unknown(plans["prod"].changed(change)))


def alert_names(plan: Plan) -> set[str]:
    """Return what the alerts are called, without the pipeline that some are of."""
    return {item.key.split(":")[0] for item in plan.resources("google_monitoring_alert_policy")}


def test_alerts_are_those_of_the_runbook(plans: dict[str, Plan]):
    names = alert_names(plans["prod"]) | {
        item.values["display_name"].split(": ")[1] for item in plans["prod"].resources("google_billing_budget")
    }
    headings = re.findall(r"^#+ (.+)$", (ROOT / "docs/runbook.md").read_text(), re.MULTILINE)
    anchors = {re.sub(r"[^a-z0-9 -]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}

    assert names == {
        "run failed",
        "run refused",
        "deadline missed",
        "not published in time",
        "gate stopped",
        "drift high",
        "bytes billed high",
        "budget",
    }
    assert {name.replace(" ", "-") for name in names} <= anchors


def test_alerts_say_what_to_do_and_reach_somebody(plan: Plan):
    for item in plan.resources("google_monitoring_alert_policy"):
        [documentation] = item.values["documentation"]
        [link] = documentation["links"]

        assert link["url"].endswith(f"/docs/runbook.md#{item.key.split(':')[0].replace(' ', '-')}")
        assert documentation["content"].endswith(".")
        assert plan.references(item.address, "notification_channels")
    assert alert_names(plan) >= {"run failed", "deadline missed", "gate stopped", "drift high", "bytes billed high"}


def test_every_pipeline_that_must_publish_is_watched(plan: Plan):
    watched = {item.key.split(": ")[1] for item in plan.resources("google_monitoring_alert_policy") if ":" in item.key}

    assert watched == set(plan.variables.get("pipelines", {}))
