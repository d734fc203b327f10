"""The yardstick of `engine.py`: what one writes without nightscore. Reads the whole table, predicts, writes it."""

import sys

import pandas as pd
from skops import io as skops_io

INPUTS = [f"f{number:02d}" for number in range(23)]

source, model, target = sys.argv[1:]
estimator = skops_io.load(model, trusted=skops_io.get_untrusted_types(file=model))
frame = pd.read_parquet(source, columns=["id", *INPUTS])
scores = estimator.predict_proba(frame[INPUTS])[:, 1]
predictions = frame[["id"]].assign(
    snapshot_date=pd.Timestamp("2026-11-19").date(),
    score=scores,
    model_version="model/1",
    run_id="2026-11-19-00000000",
    scored_at=pd.Timestamp("2026-11-20", tz="UTC"),
)
predictions.to_parquet(target, index=False)
