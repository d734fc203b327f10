"""Canonical JSON: what is compared byte by byte must be written in one way only."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightscore.objects import Stored, to_json

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
OBJECTS = st.dictionaries(
    st.text(),
    st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8),
    max_size=5,
)


def without_surrogates(content: dict[str, Any]) -> bool:
    try:
        json.dumps(content, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


@given(OBJECTS.filter(without_surrogates))
def test_there_and_back(content: dict[str, Any]) -> None:
    data = to_json(content)
    assert Stored(data, 1).json() == content
    assert to_json(dict(reversed(content.items()))) == data
    assert data.endswith(b"}\n")


@pytest.mark.parametrize("figure", [float("nan"), float("inf")])
def test_what_json_cannot_say_is_refused(figure: float) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        to_json({"auc": figure})


@pytest.mark.parametrize("data", [b"[]", b"1", b"null", b'"a"'])
def test_a_stored_object_is_a_mapping(data: bytes) -> None:
    with pytest.raises(TypeError, match="not a JSON object"):
        Stored(data, 1).json()
