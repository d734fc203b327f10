"""Whatever a run imports, imported once: the fork server's children find it there."""

import threading

import great_expectations
import pandas as pd
import pyarrow.parquet
import sklearn.ensemble
import skops.io
import sqlalchemy_bigquery
from google.cloud import bigquery, bigquery_storage, storage
from tqdm import tqdm

import nightscore.cli.app
import nightscore.pipeline

# By default it makes a lock for several processes, which a killed one would leave behind.
tqdm.set_lock(threading.RLock())

__all__ = [
    "bigquery",
    "bigquery_storage",
    "great_expectations",
    "nightscore",
    "pd",
    "pyarrow",
    "sklearn",
    "skops",
    "sqlalchemy_bigquery",
    "storage",
]
