"""tmp"""

from typing import Any


def page_of(result: Any) -> str:
    return ""
