"""What people type for a partition and a model."""

import datetime as dt

import pytest

from nightscore.arguments import ArgumentError, parse_model, parse_partition, require_name
from nightscore.spec import ModelReference


def test_a_partition_is_a_date() -> None:
    assert parse_partition("2024-02-29") == dt.date(2024, 2, 29)


@pytest.mark.parametrize("text", ["", "yesterday", "2026-02-30", "2026-11-19T00:00:00", "19-11-2026", "2026-11-19 "])
def test_not_a_partition(text: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        parse_partition(text)
    assert str(caught.value) == f"{text!r} is not a scoring date; write it like 2026-11-19."


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("credit_default", ModelReference(name="credit_default", alias="champion")),
        ("credit_default@challenger", ModelReference(name="credit_default", alias="challenger")),
        ("credit_default@7", ModelReference(name="credit_default", version=7)),
        ("credit-default@v2-b", ModelReference(name="credit-default", alias="v2-b")),
        ("mlflow:credit_default", ModelReference(source="mlflow", name="credit_default", alias="champion")),
        ("mlflow:Credit Default.v2@7", ModelReference(source="mlflow", name="Credit Default.v2", version=7)),
        ("vertex:1234567890@prod", ModelReference(source="vertex", name="1234567890", alias="prod")),
    ],
)
def test_a_model(text: str, reference: ModelReference) -> None:
    assert parse_model(text) == reference
    assert str(parse_model(text)) == (text if "@" in text else f"{text}@champion")


@pytest.mark.parametrize(
    "text",
    ["", "@champion", "Credit", "m@", "m@0", "m@07", "m@-1", "m@A", "a/b@1", "../a", "m@x@y", "m\n", "m@²",
     "mlflow:", "mlflow:@7", "mlflow:a/b@7", "mlflow:m@7.", "mlflow:mlflow:m", "s3:m@7", ":m@7", "mlflow: m@7"],
)  # fmt: skip
def test_not_a_model(text: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        parse_model(text)
    assert (
        str(caught.value) == f"{text!r} is not a model; write NAME@ALIAS, NAME@VERSION, mlflow:NAME@… or vertex:NAME@…."
    )


@pytest.mark.parametrize("text", ["m", "credit-default_2", "m" * 100])
def test_a_name(text: str) -> None:
    require_name(text, "an alias")


@pytest.mark.parametrize("text", ["", "M", "2m", "a b", "a/b", "m\n", "m" * 101])
def test_not_a_name(text: str) -> None:
    with pytest.raises(ArgumentError, match=r" is not an alias; use lower-case letters, digits, - and _"):
        require_name(text, "an alias")


@pytest.mark.parametrize("parse", [parse_partition, parse_model])
def test_messages_stay_bounded(parse: object) -> None:
    with pytest.raises(ArgumentError) as caught:
        parse("x" * 100_000)
    assert len(str(caught.value)) < 200
