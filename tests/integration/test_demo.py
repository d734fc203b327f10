"""The demonstration on a small portfolio: fill, train, and a night of its own pipeline."""

import datetime as dt
from pathlib import Path

import pytest

from nightscore.demo import portfolio
from nightscore.demo.fill import FEATURES_TABLE, OUTCOMES_TABLE, fill
from nightscore.demo.train import INPUTS, NoTrainingDataError, train
from nightscore.pipeline import run_pipeline, start
from nightscore.run import Services, build_services
from nightscore.specs import load_spec

LAST = dt.date(2026, 11, 19)
ACCOUNTS = 4000
PIPELINES = Path(__file__).parents[2] / "dags" / "pipelines"


@pytest.fixture(scope="module")
def services(settings) -> Services:
    """Services whose warehouse holds nothing of the demonstration, before and after."""
    found = build_services(settings)
    _forget(found)
    yield found
    _forget(found)


@pytest.fixture(scope="module")
def spec():
    return load_spec("credit_default", PIPELINES)


@pytest.fixture(scope="module")
def filled(services):
    return fill(services, last=LAST, nights=10, accounts=ACCOUNTS)


@pytest.fixture(scope="module")
def versions(services, filled):
    return train(services)


def _forget(services: Services) -> None:
    for dataset in ("features", "outcomes", "predictions"):
        services.warehouse.client.delete_dataset(dataset, delete_contents=True, not_found_ok=True)
    for prefix in ("registry/models/credit_default/", "runs/credit_default/"):
        for name in list(services.bucket.iter_names(prefix)):
            services.bucket._bucket.blob(name).delete()


def _nights(services, table):
    sql = f"SELECT snapshot_date AS night, COUNT(*) AS n FROM {services.warehouse.quoted(table)} GROUP BY 1 ORDER BY 1"
    return {row["night"]: row["n"] for row in services.warehouse.query(sql, doing="counting nights").rows}


def test_the_spec_rejects_what_the_portfolio_spoils(spec):
    assert spec.features.rules == portfolio.REJECT
    assert spec.features.table == FEATURES_TABLE
    assert (spec.features.partition, spec.features.keys) == (portfolio.PARTITION, (portfolio.KEY,))
    assert spec.checks.max_rejected == 0.01
    assert "When the feature gate refuses" in spec.description


def test_training_before_filling_says_what_to_do(services):
    if services.warehouse.find_table(OUTCOMES_TABLE) is None:
        with pytest.raises(NoTrainingDataError, match="nightscore demo fill"):
            train(services)


def test_fill_writes_every_night_and_the_outcomes_of_the_past(services, filled):
    dates = [LAST - dt.timedelta(days=back) for back in reversed(range(10))]
    assert filled.nights == tuple(dates)
    assert filled.outcome_nights == tuple(dates[:-1])
    assert filled.rows == 19 * ACCOUNTS
    assert _nights(services, FEATURES_TABLE) == dict.fromkeys(dates, ACCOUNTS)
    assert _nights(services, OUTCOMES_TABLE) == dict.fromkeys(dates[:-1], ACCOUNTS)


def test_fill_describes_its_tables(services, filled):
    for table, columns in ((FEATURES_TABLE, portfolio.FEATURE_COLUMNS), (OUTCOMES_TABLE, portfolio.OUTCOME_COLUMNS)):
        found = services.warehouse.require_table(table)
        assert found.time_partitioning.field == "snapshot_date"
        assert found.clustering_fields == ["account_id"]
        assert services.warehouse.columns(table) == columns


def test_what_is_in_the_table_is_what_was_made(services, filled):
    sql = f"SELECT * FROM {services.warehouse.quoted(FEATURES_TABLE)} WHERE snapshot_date = @night ORDER BY account_id"
    rows = services.warehouse.query(f"{sql} LIMIT 50", {"night": LAST}, doing="reading a night").rows
    assert rows == portfolio.night_of(LAST, ACCOUNTS).slice(0, 50).to_pylist()


def test_a_second_fill_does_nothing_and_says_so(services, filled):
    told = []
    again = fill(services, last=LAST, nights=10, accounts=ACCOUNTS, progress=told.append)
    assert (again.nights, again.outcome_nights, again.rows) == ((), (), 0)
    assert told == [
        "features.card_accounts holds the 10 nights up to 2026-11-19 already.",
        "outcomes.card_defaults holds the 9 nights up to 2026-11-18 already.",
    ]


def test_training_registers_a_champion_and_a_better_challenger(services, versions):
    champion, challenger = versions
    assert services.registry.aliases("credit_default") == {"champion": 1, "challenger": 2}
    assert (champion.label, challenger.label) == ("credit_default/1", "credit_default/2")
    assert champion.manifest.estimator == "Pipeline(LogisticRegression)"
    assert challenger.manifest.estimator == "Pipeline(HistGradientBoostingClassifier)"
    for version in versions:
        assert version.manifest.task == "binary"
        assert tuple(item.name for item in version.manifest.inputs) == INPUTS
        assert all(item.nullable for item in version.manifest.inputs)
        assert 0.70 < version.manifest.metrics["auc"] < 0.86
        assert 0.05 < version.manifest.metrics["brier"] < 0.17
        assert version.manifest.description


def test_a_second_training_does_nothing_and_says_so(services, versions):
    told = []
    assert train(services, progress=told.append) == versions
    assert told == ["champion and challenger of credit_default exist already: credit_default/1 and credit_default/2."]
    assert services.registry.versions("credit_default") == [1, 2]


@pytest.mark.parametrize("night", [LAST, LAST - dt.timedelta(days=9)], ids=str)
def test_the_pipeline_publishes_a_night(services, versions, spec, night):
    summary = run_pipeline(start(spec, night, services))
    bad = services.warehouse.query(
        f"SELECT COUNT(*) AS n FROM {services.warehouse.quoted(FEATURES_TABLE)} WHERE snapshot_date = @night AND "
        f"({' OR '.join(portfolio.REJECT.values())})",
        {"night": night},
        doing="counting bad rows",
    ).rows[0]["n"]
    assert summary["status"] == "published"
    assert 0 < bad < 0.01 * ACCOUNTS
    [found] = services.warehouse.query(
        f"SELECT COUNT(*) AS n, AVG(score) AS mean, MIN(model_version) AS model "
        f"FROM {services.warehouse.quoted(spec.predictions.table)} WHERE snapshot_date = @night",
        {"night": night},
        doing="reading predictions",
    ).rows
    assert found["n"] == ACCOUNTS - bad
    assert found["model"] == "credit_default/1"
    assert 0.15 < found["mean"] < 0.3


def test_forced_training_registers_new_versions(services, versions):
    again = train(services, force=True)
    assert [version.label for version in again] == ["credit_default/3", "credit_default/4"]
    # The same rows give the same models.
    assert [v.manifest.metrics for v in again] == [v.manifest.metrics for v in versions]


def test_a_later_night_brings_its_own_rows_and_the_outcome_before(services, versions):
    report = fill(services, last=LAST + dt.timedelta(days=1), nights=10, accounts=ACCOUNTS)
    assert report.nights == (LAST + dt.timedelta(days=1),)
    assert report.outcome_nights == (LAST,)
