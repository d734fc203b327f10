"""What the alerts' queries do as time goes by, by Prometheus' own rule tests: `promtool`, of Debian's prometheus.

Cloud Monitoring evaluates PromQL by itself; that it does as Prometheus does is its own claim.
"""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from terraform.plan import Plan

pytestmark = pytest.mark.thorough

NEVER: list[Any] = []
DAY = 24 * 60


def at(clock: str, day: int = 0) -> str:
    """Return a time of a day as promtool takes it; it begins at midnight UTC."""
    hours, minutes = clock.split(":")
    return f"{day * 24 + int(hours)}h{minutes}m"


def counter(minute: int, until: int = 2 * DAY) -> str:
    """Return a counter that goes from 0 to 1 at a minute."""
    return " ".join("1" if now >= minute else "0" for now in range(until))


class Rules:
    """The alerts of a plan as Prometheus' rules."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.folder = folder
        self.prefix = "logging_googleapis_com:user_" + plan.name.replace("-", "_") + "_"
        rules = [
            {
                "alert": item.key.replace(" ", "_").replace(":", ""),
                "expr": item.values["conditions"][0]["condition_prometheus_query_language"][0]["query"],
            }
            for item in plan.resources("google_monitoring_alert_policy")
        ]
        self._write("rules.json", {"groups": [{"name": "alerts", "interval": "1m", "rules": rules}]})

    def check(self, series: dict[str, str], expected: list[tuple[str, str, list[Any]]]) -> None:
        """Compare which alerts fire when: (alert, time, labels of those that fire)."""
        test = {
            "interval": "1m",
            "input_series": [
                {"series": self.prefix + name.replace("{", '{monitored_resource="global",'), "values": values}
                for name, values in series.items()
            ],
            "alert_rule_test": [
                {"alertname": name, "eval_time": when, "exp_alerts": [{"exp_labels": labels} for labels in fired]}
                for name, when, fired in expected
            ],
        }
        self._write("test.json", {"rule_files": ["rules.json"], "evaluation_interval": "1m", "tests": [test]})
        done = subprocess.run(
            ["promtool", "test", "rules", "test.json"], cwd=self.folder, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def _write(self, name: str, content: Any) -> None:
        (self.folder / name).write_text(json.dumps(content))  # JSON is YAML


@pytest.fixture
def rules(plans: dict[str, Plan], tmp_path: Path) -> Rules:
    """The alerts of production."""
    if not shutil.which("promtool"):
        pytest.skip("Not checked: there is no `promtool` here (Debian's package prometheus).")
    return Rules(plans["prod"], tmp_path)


PUBLISHED = 'runs_ended{pipeline="credit_default",status="published"}'
LATE = "not_published_in_time_credit_default"


def test_a_night_that_does_not_publish_is_noticed_for_two_hours_and_no_other_is(rules: Rules):
    rules.check(
        {PUBLISHED: counter(150)},  # at 02:30 of the first day, and not on the second
        [
            (LATE, at("5:59"), NEVER),
            (LATE, at("6:30"), NEVER),
            (LATE, at("5:59", 1), NEVER),
            (LATE, at("6:01", 1), [{}]),
            (LATE, at("7:59", 1), [{}]),
            (LATE, at("8:01", 1), NEVER),
        ],
    )


def test_a_pipeline_that_never_ran_is_noticed(rules: Rules):
    rules.check({}, [(LATE, at("5:59"), NEVER), (LATE, at("6:01"), [{}])])


@pytest.mark.parametrize(
    ("alert", "series"),
    [
        ("run_failed", 'runs_ended{pipeline="credit_default",status="failed"}'),
        ("deadline_missed", 'deadlines_missed{pipeline="credit_default"}'),
        ("gate_stopped", 'gates_judged{pipeline="credit_default",gate="feature_gate",verdict="stop"}'),
        ("drift_high", 'drift_high{pipeline="credit_default"}'),
        ("bytes_billed_high", 'bytes_billed_high{pipeline="credit_default"}'),
    ],
)
def test_an_event_fires_its_alert_and_that_ends(rules: Rules, alert: str, series: str):
    labels = {"pipeline": "credit_default"} | ({"gate": "feature_gate"} if alert == "gate_stopped" else {})

    rules.check(
        {series: counter(100, DAY)},
        [(alert, at("1:39"), NEVER), (alert, at("1:41"), [labels]), (alert, at("1:55"), NEVER)],
    )


def test_a_run_that_published_and_a_gate_that_warned_wake_nobody(rules: Rules):
    rules.check(
        {
            PUBLISHED: counter(100),
            'gates_judged{pipeline="credit_default",gate="feature_gate",verdict="warn"}': counter(90),
        },
        [("run_failed", at("1:41"), NEVER), ("gate_stopped", at("1:41"), NEVER)],
    )
