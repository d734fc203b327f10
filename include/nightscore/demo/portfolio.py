"""An invented portfolio of credit-card accounts, as it looks on any night.

Nothing is simulated forward from a first night: every draw is a hash of the seed, the account, its purpose and its
month or day. A night is therefore the same whichever other nights were made, and takes as long as any other.

A statement closes on a day of the month that is the account's own, so one account in twenty-eight moves on every night:
its lateness takes a step of a Markov chain, and bills and payments shift by one month. Balances follow limits, payments
follow bills. Utilisation and lateness creep upwards from February to December and are paid back in January; within a
month, balances fall after pay day and rise at weekends.
"""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nightscore.demo.draws import Draws
from nightscore.warehouse import Column

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    Array = np.ndarray[Any, np.dtype[Any]]

SEED = 20
KEY = "account_id"
PARTITION = "snapshot_date"
OUTCOME = "default_next_month"
MONTHS = range(1, 7)

EPOCH = 2026 * 12  # the month in which ages and tenures are as they were drawn
FRESH_START = 24  # months after which an account's lateness begins anew: no chain need be followed further back
WORST_STATUS = 8
PAY_DAY = 25
BAD_ROWS = 0.003
UNKNOWN_LIMITS = 0.004

EDUCATIONS = ("graduate_school", "university", "high_school", "other")
MARRIAGES = ("married", "single", "other")

# What the demonstration's pipeline rejects, and its training leaves out: true for the bad rows that are mixed in.
REJECT = {
    "impossible_age": "age NOT BETWEEN 18 AND 110",
    "impossible_limit": "limit_bal <= 0",
    "impossible_utilisation": "utilisation NOT BETWEEN 0 AND 5",
}


def _monthly(name: str, kind: str, what: str) -> list[Column]:
    return [Column(f"{name}_{k}", kind, description=f"{what}, statement {k} (1 is the latest).") for k in MONTHS]


FEATURE_COLUMNS: tuple[Column, ...] = (
    Column(KEY, "INT64", description="The account; the same on every night."),
    Column(PARTITION, "DATE", description="The night on which the row was taken."),
    Column("limit_bal", "FLOAT64", description="Credit limit; NULL where it is not known yet."),
    Column("sex", "INT64", description="1 male, 2 female."),
    Column("education", "STRING", description=f"One of {', '.join(EDUCATIONS)}."),
    Column("marriage", "STRING", description=f"One of {', '.join(MARRIAGES)}."),
    Column("age", "INT64", description="Age in years."),
    Column("months_on_book", "INT64", description="Months since the account was opened."),
    Column("utilisation", "FLOAT64", description="Tonight's balance as a share of the limit."),
    *_monthly("pay_status", "INT64", "-2 not used, -1 paid in full, 0 revolving, n: n months late"),
    *_monthly("bill_amt", "FLOAT64", "Amount billed"),
    *_monthly("pay_amt", "FLOAT64", "Amount paid before the statement"),
)
OUTCOME_COLUMNS: tuple[Column, ...] = (
    *FEATURE_COLUMNS[:2],
    Column(OUTCOME, "INT64", description="1 when the account defaulted in the month after the latest statement."),
)


def night_of(date: dt.date, accounts: int, seed: int = SEED) -> "pa.Table":
    """Return every account's features on one night: the columns of `FEATURE_COLUMNS`, accounts 1 to `accounts`."""
    import numpy as np
    import pyarrow as pa

    people = _people(date, accounts, seed)
    statements = _statements(people)
    utilisation = _utilisation(date, people, statements)
    fault = np.searchsorted(BAD_ROWS / 4 * np.arange(1, 5), people.draws.uniform("fault", date.toordinal()), "right")
    age = np.where(fault == 0, 0, np.where(fault == 1, 150, people.age))
    limit = np.where(fault == 2, -people.limit, people.limit)
    utilisation[fault == 3] = 99.0
    unknown = people.draws.uniform("unknown limit") < UNKNOWN_LIMITS
    columns: dict[str, Any] = {
        KEY: people.ids,
        PARTITION: _constant_date(date, accounts),
        "limit_bal": pa.array(limit, mask=unknown & (limit > 0)),
        "sex": people.sex,
        "education": _labels(people.education, EDUCATIONS),
        "marriage": _labels(people.marriage, MARRIAGES),
        "age": age,
        "months_on_book": people.tenure,
        "utilisation": np.round(utilisation, 4),
    }
    for k in MONTHS:
        columns[f"pay_status_{k}"] = statements.status[k - 1].astype(np.int64)
        columns[f"bill_amt_{k}"] = statements.bills[k - 1]
        columns[f"pay_amt_{k}"] = statements.payments[k - 1]
    return pa.table([columns[column.name] for column in FEATURE_COLUMNS], names=[c.name for c in FEATURE_COLUMNS])


def outcomes_of(date: dt.date, accounts: int, seed: int = SEED) -> "pa.Table":
    """Return which accounts of a night defaulted in the month that followed: the columns of `OUTCOME_COLUMNS`."""
    import numpy as np
    import pyarrow as pa

    people = _people(date, accounts, seed)
    logit = _default_logit(people, _statements(people))
    # One draw for each statement: the nights between two statements are followed by the same month.
    defaulted = people.draws.uniform("default", people.month) < _sigmoid(logit)
    columns = [people.ids, _constant_date(date, accounts), defaulted.astype(np.int64)]
    return pa.table(columns, names=[column.name for column in OUTCOME_COLUMNS])


def creep(month_of_year: float) -> float:
    """Return how far the year's drift has come: 0 on 1 February, 1 on 31 December, back to 0 through January.

    >>> creep(1.0), creep(12.0), creep(0.5)
    (0.0, 1.0, 0.5)
    """
    return 1 - month_of_year if month_of_year < 1 else (month_of_year - 1) / 11


@dataclass(frozen=True)
class _People:
    """What an account is, whatever it does."""

    ids: "Array"
    draws: Draws
    month: "Array"  # number of the latest closed statement's month
    since: "Array"  # days since it closed
    risk: "Array"
    habit: "Array"  # 0 rarely used, 1 pays in full, 2 revolves
    limit: "Array"
    sex: "Array"
    education: "Array"
    marriage: "Array"
    age: "Array"
    tenure: "Array"


@dataclass(frozen=True)
class _Statements:
    """Six statements each, the latest first."""

    status: Sequence["Array"]
    bills: Sequence["Array"]
    payments: Sequence["Array"]


def _people(date: dt.date, accounts: int, seed: int) -> _People:
    import numpy as np

    ids = np.arange(1, accounts + 1, dtype=np.int64)
    draws = Draws.of(ids, seed)
    closing = 1 + (draws.bits("closing day") % np.uint64(28)).astype(np.int64)
    month = date.year * 12 + date.month - 1
    risk = draws.normal("risk")
    education = np.searchsorted([0.35, 0.82, 0.985], draws.uniform("education"), side="right")
    age = np.clip(36 + 10 * draws.normal("age"), 21, 80)
    scale = 11.75 + 0.55 * draws.normal("limit") - 0.3 * risk + 0.012 * (age - 36) + np.where(education == 0, 0.3, 0)
    married = _sigmoid((age - 33) / 6)
    return _People(
        ids=ids,
        draws=draws,
        month=month - (date.day < closing),
        since=np.where(date.day < closing, date.day + 30, date.day) - closing,
        risk=risk,
        habit=np.searchsorted([0.1, 0.4], draws.uniform("habit") + 0.06 * np.tanh(risk), side="right"),
        limit=np.clip(np.round(np.exp(scale), -4), 10_000, 800_000),
        sex=1 + (draws.uniform("sex") < 0.6).astype(np.int64),
        education=education,
        marriage=np.where(draws.uniform("other") < 0.01, 2, draws.uniform("marriage") > married).astype(np.int64),
        age=np.clip(age + (month - EPOCH) / 12, 18, 100).astype(np.int64),
        tenure=np.maximum(0, 2 + (120 * draws.uniform("tenure")).astype(np.int64) + month - EPOCH),
    )


def _statements(people: _People) -> _Statements:
    import numpy as np

    late = _lateness(people)
    noise = [people.draws.normal("balance", people.month - k) for k in range(len(MONTHS) + 4)]
    usual = np.choose(people.habit, [-4.0, -2.0, -0.1]) + 0.55 * people.risk + 0.8 * people.draws.normal("usual use")
    bills = []
    for k in range(len(MONTHS) + 1):
        wave = 0.35 * sum(0.7**j * noise[k + j] for j in range(4))
        share = 1.05 * _sigmoid(usual + wave + 0.9 * _creep_of(people.month - k))
        share[(people.habit == 0) & (noise[k] > -0.8)] = 0.0
        share[(people.habit == 1) & (noise[k] < -2.2)] *= -0.1  # a refund
        bills.append(np.round(people.limit * share))
    status, payments = [], []
    for k in range(len(MONTHS)):
        paid = np.exp(-2.2 - 0.35 * people.risk + 0.8 * people.draws.normal("payment", people.month - k))
        paid = np.where(people.habit < 2, 1.0, np.minimum(paid, 1.0))
        paid[(late[k] > 0) & (people.draws.uniform("partial", people.month - k) < 0.7)] = 0.0
        payments.append(np.round(np.maximum(bills[k + 1], 0) * paid))
        status.append(np.where(late[k] > 0, late[k], np.where(bills[k] == 0, -2, people.habit - 2)))
    return _Statements(status, bills[:-1], payments)


def _lateness(people: _People) -> list["Array"]:
    """Return the months each account is late at its six latest statements: a Markov chain, followed from its start."""
    import numpy as np

    start = (people.draws.bits("fresh start") % np.uint64(FRESH_START)).astype(np.int64)
    slips = _sigmoid(-2.9 + 1.0 * people.risk)
    recovers = _sigmoid(0.1 - 0.5 * people.risk)
    late = np.zeros(len(people.ids), dtype=np.int8)
    path: list[Array] = []
    for back in reversed(range(FRESH_START + len(MONTHS) - 1)):
        month = people.month - back
        chance = people.draws.uniform("lateness", month)
        slipped = (chance < slips * (0.7 + 0.9 * _creep_of(month))).astype(np.int8)
        worse = np.minimum(late + (chance > 0.75), WORST_STATUS).astype(np.int8)
        late = np.where(late == 0, slipped, np.where(chance < recovers, 0, worse)).astype(np.int8)
        late[(month + start) % FRESH_START == 0] = 0
        path.append(late)
    return path[: -len(MONTHS) - 1 : -1]


def _utilisation(date: dt.date, people: _People, statements: _Statements) -> "Array":
    import numpy as np

    since_pay_day = (date.day - PAY_DAY) % 30
    season = 0.94 + 0.1 * since_pay_day / 30 + 0.02 * (date.weekday() >= 4)
    spending = 1 + 0.12 * people.since / 30 + 0.3 * (creep(_month_of_year(date)) - _creep_of(people.month))
    noise = np.exp(0.05 * people.draws.normal("tonight", date.toordinal()))
    return np.clip(statements.bills[0] / people.limit * season * spending * noise, 0, 1.5)


def _default_logit(people: _People, statements: _Statements) -> "Array":
    """Return the hidden truth: mostly thresholds and interactions, of which a linear model sees a part."""
    import numpy as np

    used = statements.bills[0] / people.limit
    late, before = np.maximum(statements.status[0], 0), np.maximum(statements.status[1], 0)
    paid_bills = zip(statements.payments[:-1], statements.bills[1:], strict=True)
    unpaid = sum(payment < 0.1 * np.maximum(bill, 1) for payment, bill in paid_bills)
    logit = -2.4 + 0.75 * np.minimum(late, 2) + 0.9 * (late >= 2) + 0.6 * ((late > 0) & (before > 0))
    logit += 0.9 * (used > 0.7) + 1.0 * ((used > 0.55) & (people.tenure < 36))
    logit += 0.7 * ((people.age < 28) & (used > 0.4)) - 0.45 * (people.limit >= 200_000) + 0.16 * unpaid
    logit += 0.35 * people.risk - 0.5 * (people.habit == 1) + 0.25 * (people.education == 2)
    return np.asarray(logit)


def _creep_of(month: "Array") -> "Array":
    import numpy as np

    return np.asarray(np.asarray([creep(m + 0.5) for m in range(12)])[month % 12])


def _month_of_year(date: dt.date) -> float:
    return date.month - 1 + (date.day - 1) / 31


def _sigmoid(value: "Array") -> "Array":
    import numpy as np

    return np.asarray(1 / (1 + np.exp(-value)))


def _labels(codes: "Array", names: Sequence[str]) -> "pa.Array":
    import pyarrow as pa

    return pa.array(list(names), pa.string()).take(pa.array(codes))


def _constant_date(date: dt.date, count: int) -> "pa.Array":
    import pyarrow as pa

    return pa.repeat(pa.scalar(date, pa.date32()), count)
