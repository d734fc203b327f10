import datetime as dt
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from nightscore.demo import portfolio
from nightscore.demo.portfolio import FEATURE_COLUMNS, OUTCOME_COLUMNS, creep, night_of, outcomes_of

NIGHT = dt.date(2026, 11, 19)
ACCOUNTS = 20_000
NIGHTS_OF_A_YEAR = [dt.date(2027, 1, 1) + dt.timedelta(days=29 * i) for i in range(13)]
ARROW = {"INT64": pa.int64(), "FLOAT64": pa.float64(), "STRING": pa.string(), "DATE": pa.date32()}


def is_bad(rows: pd.DataFrame) -> pd.Series:
    # The rules of `portfolio.REJECT` in pandas' words; a NULL is not rejected.
    return ~rows.age.between(18, 110) | (rows.limit_bal <= 0) | ~rows.utilisation.between(0, 5)


@pytest.fixture(scope="module")
def night() -> pd.DataFrame:
    return night_of(NIGHT, ACCOUNTS).to_pandas()


@pytest.mark.parametrize(
    ("make", "columns"), [(night_of, FEATURE_COLUMNS), (outcomes_of, OUTCOME_COLUMNS)], ids=["features", "outcomes"]
)
def test_columns_have_the_documented_names_and_types(make, columns):
    rows = make(NIGHT, 100)
    assert [(field.name, field.type) for field in rows.schema] == [(c.name, ARROW[c.type]) for c in columns]
    assert all(column.description for column in columns)


@pytest.mark.parametrize("make", [night_of, outcomes_of])
def test_same_question_same_answer(make):
    first = make(NIGHT, 500)
    make(NIGHT + dt.timedelta(days=40), 700)
    assert make(NIGHT, 500).equals(first)
    assert not make(NIGHT, 500, seed=21).equals(first)


@pytest.mark.parametrize("make", [night_of, outcomes_of])
def test_an_account_is_the_same_in_a_larger_portfolio(make):
    assert make(NIGHT, 2000).slice(0, 300).equals(make(NIGHT, 300))


def test_keys_are_unique_and_stay(night):
    assert night.account_id.tolist() == list(range(1, ACCOUNTS + 1))
    assert set(night.snapshot_date) == {NIGHT}
    assert night_of(NIGHT - dt.timedelta(days=1), 10)["account_id"].to_pylist() == list(range(1, 11))


def test_bad_rows_are_few_and_of_every_kind(night):
    assert 0.001 < is_bad(night).mean() < 0.006
    assert (night.age == 0).any()
    assert (night.age == 150).any()
    assert (night.limit_bal < 0).any()
    assert (night.utilisation == 99.0).any()


def test_only_the_limit_is_ever_unknown(night):
    nulls = night.isna().mean()
    assert 0.002 < nulls.limit_bal < 0.006
    assert nulls.drop("limit_bal").sum() == 0


@pytest.mark.parametrize("date", NIGHTS_OF_A_YEAR, ids=str)
def test_what_the_pipeline_checks_holds_on_every_night(date):
    rows = night_of(date, 5000).to_pandas()
    good = rows[~is_bad(rows)]
    assert is_bad(rows).mean() < 0.01
    assert 0.25 < good.utilisation.mean() < 0.75
    assert -0.6 < good.pay_status_1.mean() < 0.3
    assert 120_000 < good.limit_bal.mean() < 240_000
    assert good.pay_status_1.between(-2, 8).all()
    assert set(good.sex) == {1, 2}
    assert set(good.education) == set(portfolio.EDUCATIONS)
    assert set(good.marriage) == set(portfolio.MARRIAGES)


@pytest.mark.parametrize("date", NIGHTS_OF_A_YEAR, ids=str)
def test_about_one_account_in_five_defaults(date):
    assert 0.17 < pc.mean(outcomes_of(date, ACCOUNTS)["default_next_month"]).as_py() < 0.27


def test_balances_follow_limits_and_payments_follow_bills(night):
    assert night.limit_bal.where(night.limit_bal > 0).corr(night.bill_amt_1) > 0.4
    assert (night.pay_amt_1 == night.bill_amt_2.clip(lower=0))[night.pay_status_1 == -1].mean() > 0.95
    assert (night.pay_amt_1 == 0)[night.pay_status_1 >= 1].mean() > 0.6


def test_late_payers_default_more_often(night):
    defaulted = outcomes_of(NIGHT, ACCOUNTS)["default_next_month"].to_pandas()
    by_status = defaulted.groupby(night.pay_status_1.clip(-1, 2)).mean()
    assert by_status.loc[-1] < by_status.loc[0] < by_status.loc[1] < by_status.loc[2]
    assert by_status.loc[2] > 0.5


def test_utilisation_and_lateness_creep_upwards():
    # The same day of the month and of the week's cycle, so that seasons do not hide the drift.
    nights = [night_of(date, ACCOUNTS).to_pandas() for date in (dt.date(2026, 6, 17), NIGHT - dt.timedelta(days=2))]
    early, late = [rows[~is_bad(rows)] for rows in nights]
    assert late.utilisation.mean() > early.utilisation.mean() + 0.02
    assert (late.pay_status_1 > 0).mean() > (early.pay_status_1 > 0).mean() + 0.01


def test_creep_rises_all_year_and_is_paid_back_in_january():
    months = np.linspace(1, 11.99, 50)
    assert all(np.diff([creep(month) for month in months]) > 0)
    assert creep(0.0) == creep(12.0) == 1.0
    assert creep(1.0) == 0.0


def test_history_moves_on_by_a_month_at_each_statement():
    # Everyone's statement closes between the 1st and the 28th, so a month later everyone has exactly one more.
    before, after = [night_of(dt.date(2026, month, 28), 3000).to_pandas() for month in (8, 9)]
    for name in ("pay_status", "bill_amt", "pay_amt"):
        for k in range(1, 6):
            assert (after[f"{name}_{k + 1}"] == before[f"{name}_{k}"]).all(), (name, k)


def test_one_account_in_twenty_eight_moves_on_every_night():
    before, after = [night_of(dt.date(2026, 9, day), 10_000).to_pandas() for day in (9, 10)]
    moved = ((after.bill_amt_1 != before.bill_amt_1) & (after.bill_amt_2 == before.bill_amt_1)).mean()
    assert 0.02 < moved < 0.05


def test_lateness_is_a_chain_that_steps_by_one_month_or_ends(night):
    for k in range(1, 6):
        now, before = night[f"pay_status_{k}"].clip(lower=0), night[f"pay_status_{k + 1}"].clip(lower=0)
        assert ((now == 0) | (now == before) | (now == before + 1)).all()


def test_outcomes_between_two_statements_are_the_same():
    days = [outcomes_of(dt.date(2026, 9, day), 5000)["default_next_month"].to_pandas() for day in (9, 10)]
    assert (days[0] != days[1]).mean() < 0.03


def test_importing_it_imports_nothing_heavy():
    import subprocess

    heavy = "{'numpy', 'pandas', 'sklearn', 'pyarrow', 'google.api_core'}"
    code = f"import sys, nightscore.demo.fill, nightscore.demo.train; print(sorted({heavy} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
