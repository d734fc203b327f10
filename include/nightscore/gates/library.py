"""Importing Great Expectations: quietly, and without libraries that take a second to load and are hardly ever used."""

import importlib
import logging
import os
import sys
import types
from typing import Any

# For one expectation, about the divergence of distributions, and for charts. Importing takes a third of all its time.
_LATER = ("scipy.stats", "altair")


class _Later(types.ModuleType):
    """Stands for a module that is imported when somebody uses it."""

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module(self.__name__), name)


def load() -> Any:
    """Return the package `great_expectations`."""
    # Its analytics would call out; importing it after Airflow prints dozens of lines, and it sets its own levels then.
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    for name in ("great_expectations._docs_decorators", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    absent = [] if "great_expectations" in sys.modules else [name for name in _LATER if name not in sys.modules]
    sys.modules.update((name, _Later(name)) for name in absent)
    try:
        import great_expectations
    finally:
        for name in absent:  # only Great Expectations keeps them: whoever imports such a module next gets the module
            del sys.modules[name]
    for logger in (great_expectations.__name__, "great_expectations.data_context.types.base"):
        logging.getLogger(logger).setLevel(logging.WARNING)
    return great_expectations
