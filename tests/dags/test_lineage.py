"""Lineage without a lineage server: what is told of queries, and that nothing is imported where nobody listens."""

import subprocess
import sys
from types import SimpleNamespace

import pytest

from nightscore.orchestration import lineage

QUERY = """
WITH paid AS (SELECT account_id, SUM(amount) AS spend FROM raw.payments WHERE day = @partition GROUP BY 1)
SELECT a.account_id, a.snapshot_date, paid.spend / a.limit_bal AS utilisation
FROM `other.features.accounts` AS a JOIN paid USING (account_id)
"""


def run_of(**features):
    columns = {"account_id": "INT64", "snapshot_date": "DATE"}
    found = {"table": None, "query": None, **features}
    return SimpleNamespace(
        spec=SimpleNamespace(features=SimpleNamespace(**found)),
        plan=SimpleNamespace(columns=columns),
        warehouse=SimpleNamespace(full_name=lambda table: table if table.count(".") == 2 else f"p.{table}"),
    )


@pytest.mark.parametrize(
    ("column", "origins"),
    [
        ("account_id", [("other.features.accounts", "account_id")]),
        ("utilisation", [("p.raw.payments", "amount"), ("other.features.accounts", "limit_bal")]),
        ("nowhere", []),
    ],
)
def test_a_query_s_columns_come_from_its_tables(column, origins):
    assert sorted(lineage._origins(run_of(query=QUERY), column)) == sorted(origins)


def test_a_query_that_names_no_columns_tells_nothing():
    assert lineage._origins(run_of(query="SELECT * FROM d.t"), "account_id") == []
    assert lineage._origins(run_of(query="SELECT ((("), "account_id") == []


def test_a_table_s_column_is_called_as_the_table_calls_it():
    assert lineage._origins(run_of(table="features.cards"), "Account_ID") == [("p.features.cards", "account_id")]


@pytest.mark.parametrize("is_there", [True, False])
def test_without_a_listener_nothing_is_told_or_imported(is_there, tmp_path):
    """Neither with the provider, which has no transport here, nor without it."""
    absent = "" if is_there else "sys.modules['airflow.providers.openlineage'] = None\n"
    program = (
        f"import sys\n{absent}"
        "from nightscore.orchestration.lineage import report_features, report_publication\n"
        "report_features(None), report_publication(None, 5)\n"
        "heavy = ('openlineage', 'airflow.providers.openlineage.plugins')\n"
        "print(sorted(name for name in sys.modules if name.startswith(heavy)))"
    )
    environment = {"AIRFLOW_HOME": str(tmp_path), "PATH": ""}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()[-2:]) == (0, "[]"), done.stderr


def test_lineage_that_fails_costs_no_task(monkeypatch):
    said = []
    monkeypatch.setenv("AIRFLOW__OPENLINEAGE__TRANSPORT", '{"type": "console"}')
    monkeypatch.setattr(lineage.log, "exception", said.append)
    lineage.report_features(None)
    assert said == ["lineage was not reported"]
