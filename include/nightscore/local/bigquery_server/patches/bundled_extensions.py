"""DuckDB's extensions come from installed wheels; stock downloads them from DuckDB's site at the first start."""

from importlib.resources import files

import duckdb

EXTENSIONS = ("ducklake", "icu", "httpfs", "spatial")


def apply() -> None:
    """Install the extensions into the home directory, where DuckDB looks for them; a no-op when they are there."""
    with duckdb.connect() as connection:
        for name in EXTENSIONS:
            package = files(f"duckdb_extension_{name}")
            binary = package / "extensions" / f"v{duckdb.__version__}" / f"{name}.duckdb_extension"
            connection.execute(f"INSTALL '{binary}'")
