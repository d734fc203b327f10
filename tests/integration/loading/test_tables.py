import datetime as dt
import gzip
import itertools
import uuid
from decimal import Decimal

import pyarrow as pa
import pytest
from pyarrow import csv, parquet

from nightscore.errors import ConfigurationError
from nightscore.loading import files as table_files
from nightscore.loading import tables
from nightscore.loading.columns import LoadError
from nightscore.loading.files import FileError
from nightscore.loading.tables import load_files
from nightscore.run import build_services

D1, D2, D3 = dt.date(2026, 11, 17), dt.date(2026, 11, 18), dt.date(2026, 11, 19)


@pytest.fixture(scope="module")
def warehouse(settings):
    return build_services(settings).warehouse


@pytest.fixture
def table(warehouse):
    dataset = f"tables_{uuid.uuid4().hex[:12]}"
    yield f"{dataset}.accounts"
    warehouse.client.delete_dataset(dataset, delete_contents=True, not_found_ok=True)


@pytest.fixture
def write(tmp_path):
    """Return a function that writes text, or a table as Parquet, and gives the path."""

    def written(content, name=None):
        path = tmp_path / (name or f"{uuid.uuid4().hex[:8]}{'.csv' if isinstance(content, str) else '.parquet'}")
        if isinstance(content, str):
            path.write_text(content)
        else:
            parquet.write_table(content if isinstance(content, pa.Table) else pa.table(content), path)
        return path

    return written


def rows_of(warehouse, table, order="id"):
    return warehouse.query(f"SELECT * FROM {warehouse.quoted(table)} ORDER BY {order}", doing="reading rows").rows


def types_of(warehouse, table):
    return {column.name: column.type for column in warehouse.columns(table)}


def staged_tables(warehouse):
    found = warehouse.client.list_tables(warehouse.config.staging_dataset)
    return [item.table_id for item in found if item.table_id.startswith("nightscore_load")]


def test_csv_makes_dataset_and_table(warehouse, table, write):
    path = write("id,name,balance,active,opened\n1,Ann,1.5,true,2020-01-31\n2,,,false,\n")
    report = load_files(warehouse, table, [path])
    assert (report.table, report.rows, report.partitions) == (f"local.{table}", 2, 0)
    assert (report.first, report.last, report.bytes) == (None, None, path.stat().st_size)
    assert str(report).startswith(f"local.{table}: 2 rows, from 0.0 MB in ")
    assert types_of(warehouse, table) == {
        "id": "INT64", "name": "STRING", "balance": "FLOAT64", "active": "BOOL", "opened": "DATE",
    }  # fmt: skip
    assert rows_of(warehouse, table) == [
        {"id": 1, "name": "Ann", "balance": 1.5, "active": True, "opened": dt.date(2020, 1, 31)},
        {"id": 2, "name": None, "balance": None, "active": False, "opened": None},
    ]


def test_parquet_keeps_its_types(warehouse, table, write):
    path = write(
        {
            "id": pa.array([1], pa.int8()),
            "f": pa.array([0.5], pa.float32()),
            "s": pa.array(["x"]).dictionary_encode(),
            "n": pa.array([Decimal("1.25")], pa.decimal128(10, 2)),
            "t": pa.array([dt.datetime.fromisoformat("2026-01-01T02:03:04")], pa.timestamp("ns")),
            "e": pa.nulls(1),
        }
    )
    load_files(warehouse, table, [path])
    assert types_of(warehouse, table) == {
        "id": "INT64", "f": "FLOAT64", "s": "STRING", "n": "NUMERIC", "t": "TIMESTAMP", "e": "STRING",
    }  # fmt: skip
    assert rows_of(warehouse, table) == [
        {
            "id": 1,
            "f": 0.5,
            "s": "x",
            "n": Decimal("1.25"),
            "t": dt.datetime(2026, 1, 1, 2, 3, 4, tzinfo=dt.UTC),
            "e": None,
        }
    ]


def test_without_partition_everything_is_replaced(warehouse, table, write):
    load_files(warehouse, table, [write("id\n1\n2\n")])
    load_files(warehouse, table, [write("id\n3\n")])
    assert rows_of(warehouse, table) == [{"id": 3}]


def test_partitions_of_the_files_are_replaced_and_no_others(warehouse, table, write):
    first = write(f"id,d\n1,{D1}\n2,{D2}\n3,{D2}\n")
    report = load_files(warehouse, table, [first], partition="d")
    assert (report.rows, report.partitions, report.first, report.last) == (3, 2, D1, D2)
    assert warehouse.require_table(table).time_partitioning.field == "d"
    report = load_files(warehouse, table, [write(f"id,d\n4,{D2}\n5,{D3}\n")], partition="d")
    assert (report.rows, report.partitions, report.first, report.last) == (2, 2, D2, D3)
    assert rows_of(warehouse, table) == [{"id": 1, "d": D1}, {"id": 4, "d": D2}, {"id": 5, "d": D3}]


@pytest.mark.parametrize(
    "days",
    [
        pa.array(["2026-11-17", "2026-11-18"]),
        pa.array([D1, D2], pa.date64()),
        pa.array([D1, D2]).cast(pa.timestamp("ns")),
        pa.array([D1, D2]).cast(pa.timestamp("us", tz="UTC")),
    ],
    ids=["text", "date64", "midnight", "midnight with a zone"],
)
def test_partition_column_becomes_a_date(warehouse, table, write, days):
    load_files(warehouse, table, [write({"id": [1, 2], "d": days})], partition="d")
    assert rows_of(warehouse, table) == [{"id": 1, "d": D1}, {"id": 2, "d": D2}]


def test_partition_column_of_midnights_in_csv(warehouse, table, write):
    load_files(warehouse, table, [write("id,d\n1,2026-11-17 00:00:00\n")], partition="d")
    assert rows_of(warehouse, table) == [{"id": 1, "d": D1}]


def test_set_adds_columns_with_types(warehouse, table, write):
    values = {"snapshot_date": "2026-11-19", "n": "7", "share": "0.5", "live": "true", "code": "007", "none": ""}
    load_files(warehouse, table, [write("id\n1\n2\n")], partition="snapshot_date", set_values=values)
    constants = {"snapshot_date": D3, "n": 7, "share": 0.5, "live": True, "code": "007", "none": None}
    assert rows_of(warehouse, table) == [{"id": 1, **constants}, {"id": 2, **constants}]


def test_rename(warehouse, table, write):
    path = write("ID,default.payment.next.month\n1,0\n")
    names = {"ID": "id", "default.payment.next.month": "default_next_month"}
    load_files(warehouse, table, [path], rename=names)
    assert rows_of(warehouse, table) == [{"id": 1, "default_next_month": 0}]


def test_several_files_share_one_schema(warehouse, table, write):
    files = [
        write("id,x,empty\n1,1,\n"),
        write("x,id,empty\n2.5,2,7\n"),
        write({"empty": pa.array([8], pa.int32()), "id": [3], "x": pa.array([3], pa.int64())}),
    ]
    assert load_files(warehouse, table, files).rows == 3
    assert types_of(warehouse, table) == {"id": "INT64", "x": "FLOAT64", "empty": "INT64"}
    assert rows_of(warehouse, table) == [
        {"id": 1, "x": 1.0, "empty": None},
        {"id": 2, "x": 2.5, "empty": 7},
        {"id": 3, "x": 3.0, "empty": 8},
    ]


@pytest.mark.parametrize(
    ("cells", "kind", "values"),
    [
        (["1", "2.5"], "FLOAT64", [1.0, 2.5]),
        (["1", "NA"], "INT64", [1, None]),
        (["NA", "NL"], "STRING", ["NA", "NL"]),
        (["007", "8"], "STRING", ["007", "8"]),
        (["12345678901234567890", "8"], "STRING", ["12345678901234567890", "8"]),
        (["0", "1"], "INT64", [0, 1]),
        (["true", "False"], "BOOL", [True, False]),
        (["20261119", "2026-11-19"], "STRING", ["20261119", "2026-11-19"]),
        (["2026-11-19 01:02:03", "2026-11-19"], "TIMESTAMP", [
            dt.datetime(2026, 11, 19, 1, 2, 3, tzinfo=dt.UTC), dt.datetime(2026, 11, 19, tzinfo=dt.UTC),
        ]),
        (['"two\nlines, quoted"', "x"], "STRING", ["two\nlines, quoted", "x"]),
        ([" 5", "6 "], "INT64", [5, 6]),
    ],
)  # fmt: skip
def test_csv_types_hold_every_value(warehouse, table, write, cells, kind, values):
    load_files(warehouse, table, [write("id,v\n" + "".join(f"{i},{cell}\n" for i, cell in enumerate(cells)))])
    assert types_of(warehouse, table)["v"] == kind
    assert [row["v"] for row in rows_of(warehouse, table)] == values


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
def test_other_delimiters(warehouse, table, write, delimiter):
    load_files(warehouse, table, [write("\n".join(delimiter.join(row) for row in ("ab", "12")).replace("a", "id"))])
    assert rows_of(warehouse, table) == [{"id": 1, "b": 2}]


def test_compressed_csv(warehouse, table, tmp_path):
    path = tmp_path / "rows.csv.gz"
    path.write_bytes(gzip.compress(b"id\n1\n2\n"))
    assert load_files(warehouse, table, [path]).rows == 2


def test_files_of_many_blocks_go_in_several_parts(warehouse, table, tmp_path, monkeypatch):
    # The first 1.5 stands far behind the first block, from which a reader would guess integers.
    count = 60_000
    rows = pa.table({"id": range(count), "v": ["1"] * (count - 1) + ["1.5"], "d": [D1, D2] * (count // 2)})
    path = tmp_path / "many.csv"
    csv.write_csv(rows, path, csv.WriteOptions(quoting_style="none"))
    monkeypatch.setattr(table_files, "BLOCK_BYTES", 64_000)
    monkeypatch.setattr(tables, "PART_BYTES", 500_000)
    sent = []
    send = tables._send
    monkeypatch.setattr(tables, "_send", lambda *args: sent.append(1) or send(*args))
    report = load_files(warehouse, table, [path], partition="d")
    assert (report.rows, report.partitions) == (count, 2)
    assert 2 < len(sent) < 10
    [found] = warehouse.query(
        f"SELECT COUNT(*) AS n, COUNT(DISTINCT id) AS ids, SUM(v) AS v FROM {warehouse.quoted(table)}", doing="counting"
    ).rows
    assert found == {"n": count, "ids": count, "v": count + 0.5}


@pytest.mark.slow
def test_memory_stays_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(table_files, "BLOCK_BYTES", 2**20)
    path = tmp_path / "large.csv"
    block = "".join(f"{i},{i / 7},some words that fill the row\n" for i in range(20_000))
    with path.open("w") as opened:
        opened.write("id,x,words\n")
        for _ in range(150):
            opened.write(block)
    pool = pa.default_memory_pool()
    before = pool.bytes_allocated()
    source = table_files.open_source(path)
    most = max(pool.bytes_allocated() for _ in table_files.iter_batches(source)) - before
    assert path.stat().st_size > 130 * 2**20
    assert most < 48 * 2**20


def test_into_a_table_that_is_there(warehouse, table, write):
    load_files(warehouse, table, [write("id,x,code,d\n1,1.5,a1,2026-11-17\n")], partition="d")
    # Names in another case, whole numbers into FLOAT64, digits into STRING, a column without values.
    load_files(warehouse, table, [write("CODE,D,Id,X\n007,2026-11-18,2,3\n")], partition="d")
    load_files(warehouse, table, [write("code,d,id,x\n,2026-11-19,3,\n")], partition="D")
    assert types_of(warehouse, table) == {"id": "INT64", "x": "FLOAT64", "code": "STRING", "d": "DATE"}
    assert rows_of(warehouse, table) == [
        {"id": 1, "x": 1.5, "code": "a1", "d": D1},
        {"id": 2, "x": 3.0, "code": "007", "d": D2},
        {"id": 3, "x": None, "code": None, "d": D3},
    ]


def test_a_table_partitioned_by_a_timestamp(warehouse, table, write):
    from google.cloud import bigquery

    warehouse.create_dataset(table.split(".")[0], "For a test.")
    wanted = bigquery.Table(
        warehouse.full_name(table), [bigquery.SchemaField("id", "INT64"), bigquery.SchemaField("t", "TIMESTAMP")]
    )
    wanted.time_partitioning = bigquery.TimePartitioning("DAY", field="t")
    warehouse.client.create_table(wanted)
    load_files(warehouse, table, [write("id,t\n1,2026-11-17\n2,2026-11-18\n")], partition="t")
    load_files(warehouse, table, [write("id,t\n3,2026-11-18\n")], partition="t")
    assert [(row["id"], row["t"].date()) for row in rows_of(warehouse, table)] == [(1, D1), (3, D2)]


FAULTS = {
    "missing file": (["nowhere.csv"], {}, FileError, "nowhere.csv does not exist"),
    "a bucket": (["gs://b/rows.csv"], {}, FileError, "is not a local file. Copy it here first"),
    "empty file": ([("empty.csv", "")], {}, FileError, "empty.csv is empty"),
    "header only": ([("header.csv", "id,x\n")], {}, FileError, "has a header but not a single row"),
    "not parquet": ([("a.parquet", "id\n1\n")], {}, FileError, "a.parquet is not a Parquet file, whatever its name"),
    "not csv": ([("a.csv", "PK\x03\x04\0\0\0")], {}, FileError, "neither a CSV file with a header nor a Parquet file"),
    "ragged": ([("a.csv", "id,x\n1,2\n3\n")], {}, FileError, "cannot be read: CSV parse error"),
    "twice in a file": ([("a.csv", "id,id\n1,2\n")], {}, FileError, "columns that stand there twice: id"),
    "no file": ([], {}, LoadError, "No file was named"),
    "names": (
        [("a.csv", "id,default.payment.next.month,2nd\n1,0,1\n")], {}, LoadError,
        "--rename 'default.payment.next.month=default_payment_next_month' --rename '2nd=_2nd'",
    ),
    "renamed to nonsense": ([("a.csv", "id\n1\n")], {"rename": {"id": "a-b"}}, LoadError, "--rename 'id=a_b'"),
    "same name": ([("a.csv", "id,ID\n1,2\n")], {}, LoadError, "Several columns would have the same name: id"),
    "set of a column": ([("a.csv", "id\n1\n")], {"set_values": {"id": "2"}}, LoadError, "the same name: id"),
    "rename of nothing": (
        [("a.csv", "limit\n1\n")], {"rename": {"limits": "x"}}, LoadError, "no column 'limits'. Did you mean `limit`?",
    ),
    "other columns": (
        [("a.csv", "id,x\n1,2\n"), ("b.csv", "id,y\n1,2\n")], {}, LoadError, "it lacks x and it also has y",
    ),
    "other types": (
        [("a.csv", "id\n1\n"), ("b.csv", "id\nabc\n")], {}, LoadError, "The column 'id' is INT64 in",
    ),
    "no partition column": (
        [("a.csv", "id,day\n1,2026-11-19\n")], {"partition": "days"}, LoadError,
        "no column 'days'. Did you mean `day`? `--set days=2026-11-19`",
    ),
    "partition of numbers": ([("a.csv", "id\n1\n")], {"partition": "id"}, LoadError, "the column 'id' is INT64; days"),
    "partition of words": (
        [("a.csv", "d\nMonday\n")], {"partition": "d"}, LoadError, "cannot be DATE: Failed to parse string: 'Monday'",
    ),
    "partition of times": (
        [("a.csv", "d\n2026-11-19 08:00:00\n")], {"partition": "d"}, LoadError, "some of its times are not midnight",
    ),
    "rows without a day": (
        [("a.csv", "id,d\n1,2026-11-19\n2,\n")], {"partition": "d"}, LoadError, "1 rows have no d",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("files", "options", "error", "message"), FAULTS.values(), ids=FAULTS)
def test_what_cannot_be_loaded_says_why_and_leaves_nothing(warehouse, table, write, files, options, error, message):
    paths = [file if isinstance(file, str) else write(file[1], file[0]) for file in files]
    with pytest.raises(error) as caught:
        load_files(warehouse, table, paths, **options)
    assert isinstance(caught.value, ConfigurationError)
    assert message in str(caught.value)
    assert warehouse.find_table(table) is None


@pytest.mark.parametrize("name", ["accounts", "a.b$20261119", "a b.c"])
def test_names_that_are_no_tables(warehouse, write, name):
    with pytest.raises(LoadError, match="is not a table: write "):
        load_files(warehouse, name, [write("id\n1\n")])


def test_nested_parquet_is_refused(warehouse, table, write):
    with pytest.raises(FileError, match=r"types that cannot be loaded: tags \(list<element: string>\)"):
        load_files(warehouse, table, [write({"id": [1], "tags": [["a"]]})])


MISFITS = {
    "missing": ("id,d\n1,2026-11-18\n", "limit_bal: the table has it and the files do not."),
    "misspelt": (
        "id,d,limit_bla\n1,2026-11-18,5\n", "the table has it and the files do not. Did you mean `limit_bla`?",
    ),
    "extra": ("id,d,limit_bal,x\n1,2026-11-18,5,6\n", "x: the files have it and the table does not."),
    "fraction": ("id,d,limit_bal\n1.5,2026-11-18,5\n", "id: FLOAT64 in the files and INT64 in the table."),
    "words": ("id,d,limit_bal\n1,2026-11-18,much\n", "limit_bal: STRING in the files and FLOAT64 in the table."),
}  # fmt: skip


@pytest.mark.parametrize(("content", "message"), MISFITS.values(), ids=MISFITS)
def test_what_does_not_fit_the_table_leaves_it_as_it_was(warehouse, table, write, content, message):
    load_files(warehouse, table, [write("id,d,limit_bal\n9,2026-11-18,0.5\n")], partition="d")
    with pytest.raises(LoadError) as caught:
        load_files(warehouse, table, [write(content)], partition="d")
    assert message in str(caught.value)
    assert rows_of(warehouse, table) == [{"id": 9, "d": D2, "limit_bal": 0.5}]


def test_a_table_that_is_not_partitioned_so(warehouse, table, write):
    load_files(warehouse, table, [write("id,d,e\n1,2026-11-18,2026-11-18\n")], partition="e")
    with pytest.raises(LoadError, match="exists and is partitioned by e, not by d"):
        load_files(warehouse, table, [write("id,d,e\n1,2026-11-18,2026-11-18\n")], partition="d")


def test_staging_tables_are_removed(warehouse, table, write):
    load_files(warehouse, table, [write("id\n1\n")])
    with pytest.raises(LoadError):
        load_files(warehouse, table, [write("id,d\n1,2026-11-19\n"), write("id,d\n2,\n")], partition="d")
    assert staged_tables(warehouse) == []


def test_more_days_than_one_statement_may_change(warehouse, table, write, monkeypatch):
    monkeypatch.setattr(tables, "MOST_PARTITIONS", 3)
    days = itertools.islice((D1 + dt.timedelta(days=i) for i in itertools.count()), 4)
    with pytest.raises(LoadError, match="more than 3 days of d"):
        load_files(warehouse, table, [write("id,d\n" + "".join(f"1,{day}\n" for day in days))], partition="d")


def test_progress_is_told_in_sentences(warehouse, table, write):
    told = []
    load_files(warehouse, table, [write(f"id,d\n1,{D1}\n")], partition="d", progress=told.append)
    assert told == [
        f"Reading 1 file of 2 columns, 0.0 MB, for {table}.",
        f"Replacing 2026-11-17 of {table} by 1 rows.",
    ]
