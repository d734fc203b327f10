"""The other yardstick of `engine.py`: Spark's `mapInPandas` on all processors of this machine."""

import os
import sys
from collections.abc import Iterator

import pandas as pd
from pyspark.sql import SparkSession
from pyspark.sql import functions as f
from skops import io as skops_io

INPUTS = [f"f{number:02d}" for number in range(23)]


def main(source: str, model: str, target: str, cpus: str) -> None:
    """Score a file into a folder."""
    os.environ["PYSPARK_PYTHON"] = sys.executable
    spark = SparkSession.builder.master(f"local[{cpus}]").config("spark.ui.enabled", "false").getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")

    def predict(frames: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        estimator = skops_io.load(model, trusted=skops_io.get_untrusted_types(file=model))
        for frame in frames:
            yield pd.DataFrame({"id": frame["id"], "score": estimator.predict_proba(frame[INPUTS])[:, 1]})

    scored = spark.read.parquet(source).select("id", *INPUTS).mapInPandas(predict, "id long, score double")
    (
        scored.withColumn("snapshot_date", f.to_date(f.lit("2026-11-19")))
        .withColumn("model_version", f.lit("model/1"))
        .withColumn("run_id", f.lit("2026-11-19-00000000"))
        .withColumn("scored_at", f.to_timestamp(f.lit("2026-11-20 00:00:00")))
        .write.mode("overwrite")
        .parquet(target)
    )
    spark.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
