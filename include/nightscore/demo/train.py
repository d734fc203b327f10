"""Training two models on the demonstration's past nights: a linear champion, and a challenger that is slightly better.

It is what a team's own training job does at its end: fit, measure, save by skops, register under an alias.
"""

import datetime as dt
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nightscore.demo import portfolio
from nightscore.demo.fill import FEATURES_TABLE, OUTCOMES_TABLE
from nightscore.errors import ConfigurationError, listed
from nightscore.progress import Tell, log
from nightscore.registry.examination import Facts
from nightscore.registry.store import Registry, Version
from nightscore.run import Services
from nightscore.spec import ModelReference
from nightscore.warehouse import Warehouse, translated

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

MODEL = "credit_default"
ALIASES = ("champion", "challenger")
TRAINING_NIGHTS = 4
NIGHTS_APART = 7  # neighbouring nights hold the same statements and teach nothing new
MOST_ROWS = 100_000
HELD_OUT = 4  # one account in four
SAMPLE_ROWS = 1000
TEXT = ("education", "marriage")
INPUTS = tuple(c.name for c in portfolio.FEATURE_COLUMNS if c.name not in (portfolio.KEY, portfolio.PARTITION))


class NoTrainingDataError(ConfigurationError):
    """There are no past nights to learn from."""

    def __init__(self) -> None:
        super().__init__(f"{OUTCOMES_TABLE} holds no night to learn from. Fill it first: `nightscore demo fill`.")


@dataclass(frozen=True)
class _Fitted:
    alias: str
    estimator: Any
    metrics: Mapping[str, float]
    description: str


def train(services: Services, *, force: bool = False, progress: Tell = log.info) -> list[Version]:
    """Fit and register the champion and the challenger; return their versions.

    Where both aliases exist nothing is done, unless `force` asks for new versions.

    Raises:
        NoTrainingDataError: there are no past nights.
    """
    registry = services.registry
    if not force and set(ALIASES) <= set(registry.aliases(MODEL)):
        found = [registry.resolve(ModelReference(name=MODEL, alias=alias)) for alias in ALIASES]
        progress(f"{' and '.join(ALIASES)} of {MODEL} exist already: {' and '.join(v.label for v in found)}.")
        return found
    nights = _training_nights(services.warehouse)
    rows = _read_rows(services.warehouse, nights)
    versions = []
    for alias in ALIASES:
        fitted = _fit(alias, rows)
        versions.append(_register(registry, fitted, rows, nights))
        progress(
            f"Registered {versions[-1].label} as {alias}: AUC {fitted.metrics['auc']:.3f}, Brier score "
            f"{fitted.metrics['brier']:.3f}, learned from {fitted.metrics['training_rows']:,.0f} rows."
        )
    return versions


def _read_rows(warehouse: Warehouse, nights: Sequence[dt.date]) -> "pa.Table":
    """Return features and outcomes of a few past nights, without the rows that the pipeline rejects."""
    from google.cloud import bigquery

    where = " OR ".join(f"({rule})" for rule in portfolio.REJECT.values())
    names = ", ".join(f"f.{name}" for name in (portfolio.KEY, *INPUTS))
    keys = f"{portfolio.KEY}, {portfolio.PARTITION}"
    doing = "reading past nights to learn from"
    [counted] = warehouse.query(
        f"SELECT COUNT(*) AS n FROM {warehouse.quoted(OUTCOMES_TABLE)} WHERE {portfolio.PARTITION} IN UNNEST(@nights)",
        {"nights": nights},
        doing=doing,
    ).rows
    config = bigquery.QueryJobConfig(
        query_parameters=[
            bigquery.ArrayQueryParameter("nights", "DATE", nights),
            bigquery.ScalarQueryParameter("every", "INT64", 1 + int(counted["n"]) // MOST_ROWS),
        ]
    )
    sql = (
        f"SELECT {names}, o.{portfolio.OUTCOME}\n"
        f"FROM {warehouse.quoted(FEATURES_TABLE)} AS f\n"
        f"JOIN {warehouse.quoted(OUTCOMES_TABLE)} AS o USING ({keys})\n"
        f"WHERE f.{portfolio.PARTITION} IN UNNEST(@nights) AND MOD(f.{portfolio.KEY}, @every) = 0\n"
        # A rule on a NULL is NULL, which rejects nothing.
        f"  AND NOT IFNULL({where}, FALSE)"
    )
    with translated(doing):
        job = warehouse.client.query(sql, job_config=config)
        rows: pa.Table = job.result().to_arrow(bqstorage_client=warehouse.reader)
    # The warehouse returns rows in any order; sorted, the same nights give the same models.
    return rows.sort_by([(name, "ascending") for name in (portfolio.KEY, "months_on_book", "utilisation")])


def _training_nights(warehouse: Warehouse) -> list[dt.date]:
    """Return the latest night with outcomes and nights a few weeks before it; the last night of all is never one."""
    for table in (FEATURES_TABLE, OUTCOMES_TABLE):
        if warehouse.find_table(table) is None:
            raise NoTrainingDataError
    found = warehouse.query(
        f"SELECT DISTINCT {portfolio.PARTITION} AS night FROM {warehouse.quoted(OUTCOMES_TABLE)} "
        f"WHERE {portfolio.PARTITION} < (SELECT MAX({portfolio.PARTITION}) FROM {warehouse.quoted(FEATURES_TABLE)}) "
        "ORDER BY night DESC",
        doing="looking for past nights",
    )
    nights: list[dt.date] = []
    for row in found.rows:
        if not nights or (nights[-1] - row["night"]).days >= NIGHTS_APART:
            nights.append(row["night"])
    if not nights:
        raise NoTrainingDataError
    return nights[:TRAINING_NIGHTS]


def _fit(alias: str, rows: "pa.Table") -> _Fitted:
    """Fit one model on three accounts in four, and measure it on the others."""
    from sklearn.metrics import brier_score_loss, roc_auc_score
    from threadpoolctl import threadpool_limits

    frame = rows.to_pandas()
    # Nights of one account resemble each other: an account is wholly on one side, or the measure would flatter.
    held_out = _is_held_out(frame[portfolio.KEY])
    outcomes, inputs = frame[portfolio.OUTCOME], frame[list(INPUTS)]
    estimator, description = _champion() if alias == "champion" else _challenger()
    # On so few rows one thread takes a second; several that wait for each other on a busy laptop took fifteen.
    with threadpool_limits(1):
        estimator.fit(inputs[~held_out], outcomes[~held_out])
    scores = estimator.predict_proba(inputs[held_out])[:, 1]
    metrics = {
        "auc": round(float(roc_auc_score(outcomes[held_out], scores)), 4),
        "brier": round(float(brier_score_loss(outcomes[held_out], scores)), 4),
        "training_rows": float((~held_out).sum()),
    }
    return _Fitted(alias, estimator, metrics, description)


def _is_held_out(keys: "pd.Series[int]") -> "pd.Series[bool]":
    # Not the last digits: rows may have been picked by them.
    return (keys * 2_654_435_761 // 65_536) % HELD_OUT == 0


def _champion() -> tuple[Any, str]:
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    numbers = [name for name in INPUTS if name not in TEXT]
    prepare = ColumnTransformer(
        [
            ("numbers", make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), numbers),
            ("text", OneHotEncoder(handle_unknown="ignore"), list(TEXT)),
        ]
    )
    return make_pipeline(prepare, LogisticRegression(max_iter=500)), "Logistic regression on scaled columns."


def _challenger() -> tuple[Any, str]:
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OrdinalEncoder

    unknown = float("nan")  # a label that was never seen is a missing one
    encode = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=unknown, encoded_missing_value=unknown)
    prepare = ColumnTransformer([("text", encode, list(TEXT))], remainder="passthrough")
    trees = HistGradientBoostingClassifier(
        max_iter=150,
        learning_rate=0.06,
        max_leaf_nodes=15,
        categorical_features=list(range(len(TEXT))),
        random_state=portfolio.SEED,
    )
    return make_pipeline(prepare, trees), "Gradient-boosted trees, which see thresholds and interactions."


def _register(registry: Registry, fitted: _Fitted, rows: "pa.Table", nights: Sequence[dt.date]) -> Version:
    from pyarrow import parquet
    from skops import io as skops_io

    with tempfile.TemporaryDirectory() as folder:
        file, sample = Path(folder) / "model.skops", Path(folder) / "sample.parquet"
        skops_io.dump(fitted.estimator, file)
        parquet.write_table(rows.select(list(INPUTS)).slice(0, SAMPLE_ROWS), sample)
        facts = Facts(
            metrics=fitted.metrics,
            description=fitted.description,
            owner="risk-ml",
            training_data=f"{FEATURES_TABLE} and {OUTCOMES_TABLE} of {listed(sorted(nights))}",
        )
        return registry.register(MODEL, file, sample, alias=fitted.alias, facts=facts)
