"""The values of a spec: how sizes, shares, budgets, time spans and references are written, and their types."""

import datetime as dt
import re
from collections.abc import Callable
from typing import Annotated

from pydantic import BeforeValidator, Field, PlainSerializer
from pydantic_core import PydanticCustomError, PydanticKnownError

from nightscore.conditions import parse_condition
from nightscore.errors import shorten
from nightscore.names import IDENTIFIER, MODEL_NAME, SOURCE_MODEL_NAME, SOURCES, TABLE

MODEL_WORDS = "write NAME@ALIAS, NAME@VERSION, mlflow:NAME@… or vertex:NAME@…"

_SPANS = {
    "s": dt.timedelta(seconds=1),
    "m": dt.timedelta(minutes=1),
    "h": dt.timedelta(hours=1),
    "d": dt.timedelta(days=1),
}
_QUANTITY_UNITS = {"k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
_LEAST_QUANTITY = 256 * 2**20  # what a task needs before it reads its first row
_BYTE_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "PB": 10**15}


def parse_bytes(value: object) -> object:
    """Return a number of bytes from `200GB`; anything else is passed on for pydantic to judge.

    >>> parse_bytes("1.5 GB")
    1500000000
    """
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGTP]?B?)\s*", value.upper())
    if match is None or match[2] not in _BYTE_UNITS:
        raise ValueError(f"{shorten(value)!r} is not a size; write it like 200GB")
    return int(float(match[1]) * _BYTE_UNITS[match[2]])


def parse_cpu(value: object) -> object:
    """Return a number of processors as Kubernetes writes it most plainly.

    >>> parse_cpu(4), parse_cpu("0.5"), parse_cpu("2500m")
    ('4', '500m', '2500m')
    """
    text = _number_text(value)
    match = re.fullmatch(r"(\d{1,4})(?:\.(\d{1,3})0*)?|(\d{1,7})m", text)
    if match is None:
        near = re.fullmatch(r"(\d{1,7}(?:\.\d{1,3})?) *(M|m(?:illi)?|v?cpus?|cores?|c)", text, re.IGNORECASE)
        meant = f"{near[1]}{'m' if near[2][0] in 'mM' else ''}" if near else "it like 4, 0.5 or 500m"
        raise ValueError(f"{shorten(value)!r} is not a number of processors; write {meant}")
    milli = int(match[3]) if match[3] else int(match[1]) * 1000 + int((match[2] or "").ljust(3, "0"))
    if milli == 0:
        raise ValueError(f"{shorten(value)!r} is no processor at all; write it like 4, 0.5 or 500m")
    return f"{milli}m" if milli % 1000 else str(milli // 1000)


def parse_quantity(value: object) -> object:
    """Return an amount of memory or disk in Kubernetes' units, like `8Gi`.

    >>> parse_quantity("8Gi"), parse_quantity("1.5G")
    ('8Gi', '1.5G')
    """
    text = _number_text(value)
    match = re.fullmatch(r"(\d{1,6}(?:\.\d{1,3})?)(Ki|Mi|Gi|Ti|k|M|G|T)", text)
    if match is None:
        near = re.fullmatch(r"(\d{1,6}(?:\.\d{1,3})?) *([kmgt])(i?)(b?)", text, re.IGNORECASE)
        unit = "" if near is None else near[2].upper() + ("i" if near[3] or not near[4] else "")
        meant = f"{near[1]}{'k' if unit == 'K' else unit}" if near else "it like 8Gi"
        # Kubernetes itself takes `m` for thousandths, of a byte as well.
        what = "thousandths of a byte" if text.endswith("m") and near else "no amount that Kubernetes knows"
        raise ValueError(f"{shorten(value)!r} is {what}; write {meant}")
    if float(match[1]) * _QUANTITY_UNITS[match[2]] < _LEAST_QUANTITY:
        raise ValueError(f"{shorten(value)!r} is less than any task needs; write at least 256Mi")
    return text


def _number_text(value: object) -> str:
    return str(value).strip() if isinstance(value, (int, float, str)) and not isinstance(value, bool) else ""


def parse_share(value: object) -> object:
    """Return a share between 0 and 1 from `1%` or `0.01`.

    >>> parse_share("1%")
    0.01
    """
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*%\s*", value)
    if match is None:
        raise ValueError(f"{shorten(value)!r} is not a share; write it like 1% or 0.01")
    return float(match[1]) / 100


def parse_budget(value: object) -> object:
    """Return a share from `1%` or `0.01`, and a number of rows from an integer.

    >>> parse_budget("1%"), parse_budget(0.01), parse_budget(100)
    (0.01, 0.01, 100)
    """
    if isinstance(value, int) and not isinstance(value, bool):
        if value < 0:
            raise PydanticKnownError("greater_than_equal", {"ge": 0})
        return value
    value = parse_share(value)
    if isinstance(value, bool) or not isinstance(value, float):
        raise PydanticCustomError("budget_type", "must be a share like 1% or 0.01, or a number of rows")
    if not 0 <= value <= 1:
        raise PydanticCustomError("budget_share", "must be a share between 0 and 1, or a number of rows")
    return value


def budget_text(budget: float) -> str:
    """Return a budget for people.

    >>> budget_text(0.01), budget_text(1200)
    ('1.00%', '1,200')
    """
    return f"{budget:,}" if isinstance(budget, int) else f"{budget:.2%}"


def parse_days(value: object) -> object:
    """Return a time span from `30d`.

    >>> parse_days("30d")
    datetime.timedelta(days=30)
    """
    if isinstance(value, dt.timedelta):
        return value
    match = re.fullmatch(r"\s*(\d{1,4})\s*d(?:ays?)?\s*", str(value))
    if match is None:
        raise ValueError(f"{shorten(value)!r} is not a time span in days; write it like 30d")
    return dt.timedelta(days=int(match[1]))


def parse_time(value: object) -> object:
    """Return a time of day like `06:00`; anything but text is passed on for pydantic to judge.

    >>> parse_time("06:00")
    '06:00'
    """
    if isinstance(value, int) and not isinstance(value, bool):
        # YAML 1.1 counts in sixties: 22:30 is 1350.
        raise ValueError(f'must be in quotes, like "06:00"; without them YAML reads {value}')  # noqa: TRY004
    if isinstance(value, str) and not re.fullmatch(r"(?:[01][0-9]|2[0-3]):[0-5][0-9]", value):
        raise ValueError(f'{shorten(value)!r} is not a time of day; write it like "06:00"')
    return value


def parse_span(value: object) -> object:
    """Return a time span from `90m`, `3h` or `2d`.

    >>> parse_span("90m")
    datetime.timedelta(seconds=5400)
    """
    if isinstance(value, dt.timedelta):
        return value
    match = re.fullmatch(r"\s*(\d{1,6})\s*([smhd])\s*", str(value))
    if match is None:
        raise ValueError(f"{shorten(value)!r} is not a time span; write it like 90m, 3h or 2d")
    return int(match[1]) * _SPANS[match[2]]


def span_text(span: dt.timedelta) -> str:
    """Return a time span as a spec writes it, in whole seconds.

    >>> span_text(dt.timedelta(hours=3)), span_text(dt.timedelta(minutes=90))
    ('3h', '90m')
    """
    unit = next(unit for unit in reversed(_SPANS) if not span % _SPANS[unit] or unit == "s")
    return f"{span // _SPANS[unit]}{unit}"


def parse_conditions(value: object, parse_all: Callable[[object], tuple[str, ...]]) -> tuple[str, ...]:
    """Return conditions as a tuple of texts from one text or a list of them."""
    # A lone text is looked at here: as an item of a list, its fault would be told of a place that the file has not.
    return (condition_text(value),) if isinstance(value, str) else parse_all(value)


def condition_text(text: str) -> str:
    """Return a condition as it is written most plainly."""
    return str(parse_condition(text))


def parse_challenger(value: object) -> object:
    """Return a model's alias, or the version number that digits mean.

    >>> [parse_challenger("challenger"), parse_challenger("7"), parse_challenger(7)]
    ['challenger', 7, 7]
    """
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,18}", value):
        value = int(value)
    # A union of two types would report one fault for each of them.
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise PydanticCustomError("reference_type", "must be an alias or a version number")
    if isinstance(value, int) and value < 1:
        raise PydanticKnownError("greater_than_equal", {"ge": 1})
    if isinstance(value, str) and not re.fullmatch(MODEL_NAME, value):
        raise PydanticKnownError("string_pattern_mismatch", {"pattern": MODEL_NAME})
    return value


def parse_positive(value: object) -> object:
    """Return the value that means the positive class: TRUE, a whole number or text.

    >>> [parse_positive(True), parse_positive(2), parse_positive("default")]
    [True, 2, 'default']
    """
    # A union of three types would report one fault for each of them.
    if value is not None and not isinstance(value, (bool, int, str)):
        raise PydanticCustomError("positive_type", "must be TRUE, a whole number or text")
    return value


def parse_reference(value: object) -> object:
    """Return the keys that a model's text means: NAME, NAME@ALIAS or NAME@VERSION, each perhaps after `mlflow:`.

    >>> parse_reference("mlflow:Credit Default@7")
    {'source': 'mlflow', 'name': 'Credit Default', 'version': 7}
    >>> parse_reference("credit_default")
    {'name': 'credit_default'}
    """
    if not isinstance(value, str):
        return value
    source, colon, rest = value.rpartition(":")
    name, sign, which = rest.partition("@")
    if (colon and source not in SOURCES) or not re.fullmatch(SOURCE_MODEL_NAME if colon else MODEL_NAME, name):
        raise ValueError(f"{shorten(value, 100)!r} is not a model; {MODEL_WORDS}")
    found: dict[str, object] = {"source": source, "name": name} if colon else {"name": name}
    if not sign:
        return found
    if re.fullmatch(r"[1-9][0-9]{0,17}", which):
        return {**found, "version": int(which)}
    if re.fullmatch(MODEL_NAME, which):
        return {**found, "alias": which}
    raise ValueError(f"{shorten(value, 100)!r} is not a model; {MODEL_WORDS}")


Column = Annotated[str, Field(pattern=rf"^{IDENTIFIER}$")]
Table = Annotated[str, Field(pattern=rf"^{TABLE}$")]
Share = Annotated[float, BeforeValidator(parse_share, json_schema_input_type=float | str), Field(ge=0, le=1)]
Budget = Annotated[float | int, BeforeValidator(parse_budget, json_schema_input_type=float | int | str)]
Level = Annotated[float, BeforeValidator(parse_share, json_schema_input_type=float | str), Field(gt=0)]
Confidence = Annotated[float, BeforeValidator(parse_share, json_schema_input_type=float | str), Field(ge=0.5, lt=1)]
Positive = Annotated[bool | int | str | None, BeforeValidator(parse_positive)]
Bytes = Annotated[int, BeforeValidator(parse_bytes, json_schema_input_type=int | str), Field(gt=0)]
Cpu = Annotated[str, BeforeValidator(parse_cpu, json_schema_input_type=int | float | str)]
Quantity = Annotated[str, BeforeValidator(parse_quantity, json_schema_input_type=str)]
Challenger = Annotated[
    Annotated[int, Field(ge=1)] | Annotated[str, Field(pattern=rf"^{MODEL_NAME}$")], BeforeValidator(parse_challenger)
]
TimeOfDay = Annotated[str, BeforeValidator(parse_time, json_schema_input_type=str)]
Days = Annotated[
    dt.timedelta,
    BeforeValidator(parse_days, json_schema_input_type=str),
    Field(gt=dt.timedelta(0), le=dt.timedelta(days=3650)),
]
Span = Annotated[
    dt.timedelta,
    BeforeValidator(parse_span, json_schema_input_type=str),
    PlainSerializer(span_text, return_type=str),
]
