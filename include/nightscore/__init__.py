"""nightscore: nightly batch scoring on BigQuery, checked on both sides and published in one atomic step."""

__version__ = "0.1.0"
