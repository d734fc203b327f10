"""Expectations of a spec become Great Expectations' own; what is wrong with one is said in one sentence."""

import json
import subprocess
import sys
from typing import Any

import pytest

from nightscore.gates.expectations import ExpectationError, require_expectations
from nightscore.spec import Expectation

pytestmark = pytest.mark.filterwarnings("default")  # importing Great Expectations warns of what it will drop one day

NOT_NULL = "expect_column_values_to_not_be_null"
BETWEEN = "expect_column_values_to_be_between"
QUANTILES = "expect_column_quantile_values_to_be_between"
PAIR = "expect_column_pair_values_to_be_equal"
COMPOUND = "expect_compound_columns_to_be_unique"
COUNT = "expect_table_row_count_to_equal"

MALFORMED: list[tuple[str, dict[str, Any], str]] = [
    (
        "expect_column_values_to_be_nul",
        {"column": "a"},
        (
            ".expect: Great Expectations has no 'expect_column_values_to_be_nul'. "
            "Did you mean `expect_column_values_to_be_null`?"
        ),
    ),
    (NOT_NULL, {}, f".{NOT_NULL}.column: is required."),
    (NOT_NULL, {"colum": "a"}, f".{NOT_NULL}.colum: unknown argument. Did you mean `column`?"),
    (NOT_NULL, {"column": ""}, f".{NOT_NULL}.column: ensure this value has at least 1 characters, found ''."),
    (NOT_NULL, {"column": 5}, f".{NOT_NULL}.column: str type expected, found 5."),
    (NOT_NULL, {"column": ["a", "b"]}, f".{NOT_NULL}.column: str type expected, found ['a', 'b']."),
    (
        NOT_NULL,
        {"column": "a", "mostly": 1.5},
        f".{NOT_NULL}.mostly: ensure this value is less than or equal to 1.0, found 1.5.",
    ),
    (NOT_NULL, {"column": "a", "mostly": "most"}, f".{NOT_NULL}.mostly: value is not a valid float, found 'most'."),
    (NOT_NULL, {"column": "a", "mosty": 0.5}, f".{NOT_NULL}.mosty: unknown argument. Did you mean `mostly`?"),
    (BETWEEN, {"column": "a"}, f".{BETWEEN}: min_value and max_value cannot both be None."),
    (BETWEEN, {"column": "a", "min_value": [1]}, f".{BETWEEN}.min_value: value is not a valid float, found [1]."),
    (
        BETWEEN,
        {"column": "a", "min_value": 1, "strict_min": "sometimes"},
        f".{BETWEEN}.strict_min: value could not be parsed to a boolean, found 'sometimes'.",
    ),
    (
        "expect_column_values_to_be_in_set",
        {"column": "a", "value_set": "red"},
        ".expect_column_values_to_be_in_set.value_set: value is not a valid list, found 'red'.",
    ),
    (
        "expect_column_values_to_match_regex",
        {"column": "a", "regx": "^a"},
        ".expect_column_values_to_match_regex.regx: unknown argument. Did you mean `regex`?",
    ),
    (COUNT, {"value": "many"}, f".{COUNT}.value: value is not a valid integer, found 'many'."),
    (COMPOUND, {"column_list": "a"}, f".{COMPOUND}.column_list: value is not a valid sequence, found 'a'."),
    (
        COMPOUND,
        {"column_list": ["a"]},
        f".{COMPOUND}.column_list: column_list must contain at least two columns, found ['a'].",
    ),
    (PAIR, {"column_A": "a"}, f".{PAIR}.column_B: is required."),
    (
        PAIR,
        {"column_A": "a", "column_B": "b", "ignore_row_if": "never"},
        (
            f".{PAIR}.ignore_row_if: unexpected value; permitted: 'both_values_are_missing', "
            "'either_value_is_missing', 'neither', found 'never'."
        ),
    ),
    (QUANTILES, {"column": "a"}, f".{QUANTILES}.quantile_ranges: is required."),
    (
        "expect_column_value_z_scores_to_be_less_than",
        {"column": "a", "threshold": 3},
        ".expect_column_value_z_scores_to_be_less_than.double_sided: is required.",
    ),
]


@pytest.mark.parametrize(("name", "arguments", "message"), MALFORMED)
def test_what_is_wrong_is_said_in_one_sentence(name: str, arguments: dict[str, Any], message: str) -> None:
    good = Expectation(expect=COUNT, value=1)
    with pytest.raises(ExpectationError) as refused:
        require_expectations("cards", "checks.features", [good, Expectation(expect=name, **arguments)])
    assert str(refused.value) == f"cards: checks.features[1]{message}"


def test_an_unknown_expectation_far_from_all_names_some() -> None:
    with pytest.raises(ExpectationError, match=r"has no 'expect_rain'. Allowed: expect_column_.* more.$") as refused:
        require_expectations("cards", "checks.features", [Expectation(expect="expect_rain")])
    assert len(str(refused.value)) < 1000


def test_the_severity_and_the_arguments_arrive() -> None:
    asked = Expectation(expect=NOT_NULL, column="a", mostly=0.9, severity="warning")
    [found] = require_expectations("cards", "checks.features", [asked])
    assert (found.column, found.mostly, found.severity.value) == ("a", 0.9, "warning")
    assert found.configuration.type == NOT_NULL


def test_importing_it_loads_nothing_that_is_hardly_used() -> None:
    # In a process of its own: here, others have imported everything.
    code = """
import json, sys
from nightscore.gates import library
gx = library.load()
before = [name in sys.modules for name in ("scipy.stats", "altair")]
from great_expectations.expectations.core import expect_column_kl_divergence_to_be_less_than as module
entropy = module.stats.entropy([0.5, 0.5])
import scipy.stats
print(json.dumps([before, entropy, scipy.stats.norm.cdf(0.0), module.stats.entropy is scipy.stats.entropy]))
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    before, entropy, half, same = json.loads(done.stdout)
    assert before == [False, False]
    assert (round(entropy, 6), half, same) == (0.693147, 0.5, True)
