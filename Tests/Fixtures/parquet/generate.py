"""Makes the fixtures of this folder: Parquet files, and the rows that pyarrow reads from them as JSON.

    pip install pyarrow pandas polars fastparquet datasets && python generate.py

`a.b.c.parquet` holds the rows of `a.json`: the same rows are written in several ways. Files that no library writes any
more, and damaged ones, come from `handmade.py`.
"""
import datetime
import decimal
import json
import math
import pathlib
import random
import uuid

import datasets
import fastparquet
import numpy
import pandas
import polars
import pyarrow as pa
import pyarrow.parquet as pq

import handmade

HERE = pathlib.Path(__file__).parent
REFUSED = HERE / "refused"
CODECS = {"plain": "NONE", "snappy": "SNAPPY", "gzip": "GZIP", "lz4": "LZ4"}


def as_json(value, kind):
    """A value as the reader is to give it: times and decimal numbers as text, maps as lists of objects."""
    if value is None:
        return None
    if isinstance(kind, pa.ExtensionType) and not isinstance(value, uuid.UUID):
        kind = kind.storage_type
    if pa.types.is_map(kind):
        return [{"key": as_json(k, kind.key_type), "value": as_json(v, kind.item_type)} for k, v in value]
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return [as_json(element, kind.value_type) for element in value]
    if pa.types.is_struct(kind):
        return {field.name: as_json(value[field.name], field.type) for field in kind}
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, decimal.Decimal):
        return format(value, "f")
    if isinstance(value, datetime.datetime) and value.tzinfo:
        return str(value.astimezone(datetime.timezone.utc))
    if isinstance(value, (datetime.date, datetime.time, uuid.UUID)):
        return str(value)
    if isinstance(value, (float, numpy.floating)):
        # JSON has no such numbers.
        return float(value) if math.isfinite(value) else {"number": str(float(value))}
    return value


def rows_of(path):
    """What pyarrow reads, without what it restores from the Arrow schema that it wrote into the file."""
    table = pq.ParquetFile(path).read()
    fields = list(table.schema)
    return [
        {field.name: as_json(row[field.name], field.type) for field in fields} for row in table.to_pylist()
    ]


def write_json(name, rows):
    lines = ",\n".join(json.dumps(row, ensure_ascii=False, separators=(",", ":")) for row in rows)
    (HERE / f"{name}.json").write_text(f"[\n{lines}\n]\n" if rows else "[]\n")


def save(name, write):
    """Writes a file, and its rows or, if there are such, compares them."""
    path = HERE / f"{name}.parquet"
    write(str(path))
    rows = rows_of(path)
    # pyarrow 26 loses rows of lists in pages of a single value.
    assert len(rows) == pq.ParquetFile(path).metadata.num_rows, name
    base = name.split(".")[0]
    known = HERE / f"{base}.json"
    if base in save.known:
        assert json.loads(known.read_text()) == json.loads(json.dumps(rows)), name
    else:
        save.known.add(base)
        write_json(base, rows)


save.known = set()


def write(table, name, **options):
    options = {"compression": "NONE", "write_statistics": False, "store_schema": False, **options}
    save(name, lambda path: pq.write_table(table, path, **options))


WORDS = ["", "sea", "sky", "naïve café", "日本語", "😀 family", "a longer text, of more than fifteen bytes", "tab\tand\nline"]


def types(count, seed=1):
    """Columns of all types without parts."""
    source = random.Random(seed)

    def column(make, kind, missing=0.2):
        return pa.array([None if source.random() < missing else make() for _ in range(count)], kind)

    def integer(bits, signed=True):
        low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
        return lambda: source.choice([low, high, 0, 1, source.randint(low, high)])

    def real():
        return source.choice([0.0, -0.0, 1.5, math.nan, math.inf, -math.inf, source.gauss(0, 1e10)])

    return pa.table(
        {
            "id": pa.array(range(count), pa.int64()),
            "text": column(lambda: source.choice(WORDS), pa.string()),
            "large": column(lambda: source.choice(WORDS), pa.large_string()),
            "bytes": column(lambda: source.choice(WORDS).encode(), pa.binary()),
            "fixed": column(lambda: source.choice([b"abcde", b"12345"]), pa.binary(5)),
            "category": column(lambda: source.choice(WORDS), pa.string()).dictionary_encode(),
            "flag": column(lambda: source.random() < 0.5, pa.bool_()),
            "i8": column(integer(8), pa.int8()),
            "i16": column(integer(16), pa.int16()),
            "i32": column(integer(32), pa.int32()),
            "i64": column(integer(64), pa.int64()),
            "u8": column(integer(8, False), pa.uint8()),
            "u16": column(integer(16, False), pa.uint16()),
            "u32": column(integer(32, False), pa.uint32()),
            "u64": column(integer(64, False), pa.uint64()),
            "half": column(lambda: numpy.float16(source.choice([0, 1.5, -2.25, 6e-8, 65504, math.nan, math.inf])), pa.float16()),
            "single": column(real, pa.float32()),
            "double": column(real, pa.float64()),
            "nothing": pa.nulls(count),
        }
    )


def logical(count):
    """Columns of dates, times, decimal numbers and identifiers."""
    source = random.Random(2)

    def column(make, kind):
        return pa.array([None if source.random() < 0.15 else make() for _ in range(count)], kind)

    def instant(unit):
        per_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
        # What the years 1 to 9999 allow, and what 64 bits of nanoseconds allow.
        low, high = (-62135596800, 253402300799) if unit != "ns" else (-9223372036, 9223372035)
        return lambda: source.choice(
            [0, -1, 1, low * per_second, high * per_second, source.randint(low, high) * per_second + source.randrange(per_second)])

    def number(precision, scale):
        return lambda: decimal.Decimal(
            source.choice([0, 1, -1, 10**precision - 1, 1 - 10**precision, source.randrange(10**precision)])
        ).scaleb(-scale, decimal.Context(prec=100))

    columns = {
        "date": column(lambda: source.choice([0, -1, -719162, 2932896, 11016, source.randint(-719162, 2932896)]), pa.date32()),
        "date64": column(lambda: source.randint(-7000, 20000) * 86400000, pa.date64()),
        "time_s": column(lambda: source.randrange(86400), pa.time32("s")),
        "time_ms": column(lambda: source.choice([0, 86399999, source.randrange(86400000)]), pa.time32("ms")),
        "time_us": column(lambda: source.choice([0, 86399999999, source.randrange(86400) * 1000000, source.randrange(86400000000)]), pa.time64("us")),
        "identifier": pa.array([uuid.UUID(int=source.getrandbits(128)) for _ in range(count)], pa.uuid()),
    }
    for unit in ("s", "ms", "us", "ns"):
        columns[f"at_{unit}"] = column(instant(unit), pa.timestamp(unit))
        columns[f"utc_{unit}"] = column(instant(unit), pa.timestamp(unit, "UTC"))
    for precision, scale in ((1, 0), (5, 2), (9, 9), (18, 4), (19, 0), (38, 10), (38, 38)):
        columns[f"decimal_{precision}_{scale}"] = column(number(precision, scale), pa.decimal128(precision, scale))
    columns["decimal_76_20"] = column(number(76, 20), pa.decimal256(76, 20))
    return pa.table(columns)


def encodings(count):
    """Columns without and with nulls, for all encodings of values."""
    source = random.Random(3)
    names = [f"path/{n // 7}/{WORDS[n % 5]}" for n in range(count)]
    table = {
        "small": pa.array([source.randrange(-5, 5) for _ in range(count)], pa.int32()),
        "wide": pa.array([source.choice([-(1 << 31), (1 << 31) - 1, 7]) for _ in range(count)], pa.int32()),
        "rising": pa.array([n * n for n in range(count)], pa.int64()),
        "huge": pa.array([source.choice([-(1 << 63), (1 << 63) - 1, n]) for n in range(count)], pa.int64()),
        "names": pa.array(names, pa.string()),
        "same": pa.array(["the same"] * count, pa.string()),
        "fixed": pa.array([f"{n // 3:04}".encode() for n in range(count)], pa.binary(4)),
        "flags": pa.array([n % 5 == 0 for n in range(count)], pa.bool_()),
        "single": pa.array([n / 4 for n in range(count)], pa.float32()),
        "double": pa.array([round(source.gauss(0, 1), 2) for _ in range(count)], pa.float64()),
    }
    fields = [pa.field(name, values.type, nullable=False) for name, values in table.items()]
    for name in ("small", "rising", "names", "flags", "double"):
        kept = [None if n % 3 == 1 or 100 < n < 140 else v.as_py() for n, v in enumerate(table[name])]
        table[f"some_{name}"] = pa.array(kept, table[name].type)
        fields.append(pa.field(f"some_{name}", table[name].type))
    return pa.table(list(table.values()), schema=pa.schema(fields))


def encoding_options(table, integers, texts, fixed, numbers, flags="PLAIN"):
    choice = {pa.int32(): integers, pa.int64(): integers, pa.string(): texts, pa.binary(4): fixed,
              pa.bool_(): flags, pa.float32(): numbers, pa.float64(): numbers}
    return {"use_dictionary": False, "column_encoding": {field.name: choice[field.type] for field in table.schema}}


def nested(count):
    """Lists, structures and maps in each other, with nulls and empty lists at every level."""
    source = random.Random(4)

    def maybe(make, missing=0.2):
        return None if source.random() < missing else make()

    def items(make, most=3):
        return [make() for _ in range(source.choice([0, 0, 1, most, source.randint(0, most)]))]

    def word():
        return source.choice(WORDS)

    def number():
        return source.randrange(100)

    person = pa.struct([
        pa.field("name", pa.string(), nullable=False), pa.field("age", pa.int32()),
        pa.field("tags", pa.list_(pa.string())),
        pa.field("home", pa.struct([pa.field("city", pa.string()), pa.field("rooms", pa.list_(pa.int64()))])),
    ])

    def make_person():
        return {"name": word(), "age": maybe(number), "tags": maybe(lambda: items(lambda: maybe(word))),
                "home": maybe(lambda: {"city": maybe(word), "rooms": maybe(lambda: items(lambda: maybe(number)))})}

    columns = {
        "words": (pa.list_(pa.string()), lambda: maybe(lambda: items(lambda: maybe(word)))),
        "sure": (pa.list_(pa.field("element", pa.int32(), nullable=False)), lambda: items(number)),
        "lists": (pa.list_(pa.list_(pa.int64())), lambda: maybe(lambda: items(lambda: maybe(lambda: items(lambda: maybe(number)))))),
        "deep": (pa.list_(pa.list_(pa.list_(pa.bool_()))),
                 lambda: maybe(lambda: items(lambda: maybe(lambda: items(lambda: maybe(lambda: items(lambda: maybe(lambda: source.random() < 0.5)))))))),
        "person": (person, lambda: maybe(make_person)),
        "people": (pa.list_(person), lambda: maybe(lambda: items(lambda: maybe(make_person)))),
        "counts": (pa.map_(pa.string(), pa.int32()),
                   lambda: maybe(lambda: [(f"{n}{word()}", maybe(number)) for n in range(source.randrange(4))])),
        "index": (pa.map_(pa.int64(), pa.list_(person)),
                  lambda: maybe(lambda: [(n, maybe(lambda: items(lambda: maybe(make_person), 2))) for n in range(source.randrange(3))])),
        "maps": (pa.list_(pa.map_(pa.string(), pa.string())),
                 lambda: maybe(lambda: items(lambda: maybe(lambda: [(word(), maybe(word)) for _ in range(source.randrange(3))])))),
        "pair": (pa.list_(pa.float64(), 2), lambda: maybe(lambda: [1.5, maybe(lambda: 2.0)])),
        "plain": (pa.int64(), number),
    }
    return pa.table({name: pa.array([make() for _ in range(count)], kind) for name, (kind, make) in columns.items()},
                    schema=pa.schema([pa.field(name, kind, nullable=name not in ("sure", "plain")) for name, (kind, _) in columns.items()]))


def library_rows():
    return {
        "text": ["A first line.", "naïve café", "", "日本語"] * 5,
        "label": [0, 1, 1, 0] * 5,
        "score": [0.5, -1.25, 3.0, 0.1] * 5,
        "tags": [["a", "b"], [], ["c"], ["d", "e", "f"]] * 5,
        "chat": [[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}], [], [{"role": "user", "content": ""}], []] * 5,
        "answers": [{"text": ["x"], "start": [1]}, {"text": [], "start": []}] * 10,
    }


def main():
    REFUSED.mkdir(exist_ok=True)
    for old in [*HERE.rglob("*.parquet"), *HERE.rglob("*.json")]:
        old.unlink()

    table = types(23)
    for codec, option in CODECS.items():
        for version in ("1.0", "2.0"):
            write(table, f"types.{codec}.v{version[0]}", compression=option, data_page_version=version)
    write(table, "types.pages", data_page_size=20, write_batch_size=5, row_group_size=11, use_dictionary=False)

    write(types(0), "none.default")
    write(types(0).slice(0, 0), "none.groups", compression="SNAPPY")
    write(types(1, seed=5), "one.v1", store_schema=True, write_statistics=True, write_page_index=True, write_page_checksum=True)
    write(types(1, seed=5), "one.v2", data_page_version="2.0", compression="SNAPPY")

    table = logical(15)
    write(table, "logical.fixed")
    write(table, "logical.integers", store_decimal_as_integer=True, use_dictionary=False, data_page_version="2.0", compression="GZIP")
    times = pa.table({"at": pa.array([0, None, -1, 951_782_400_123_456_789, -2_208_988_800_000_000_000], pa.timestamp("ns"))})
    write(times, "int96.dictionary", use_deprecated_int96_timestamps=True)
    write(times, "int96.plain", use_deprecated_int96_timestamps=True, use_dictionary=False)
    write(pa.table({"at": pa.array([0, None, 951_782_400_123_000], pa.timestamp("us", "Europe/Berlin"))}), "zone.berlin")

    table = encodings(141)
    pages = {"row_group_size": 132, "data_page_size": 500, "write_batch_size": 32, "compression": "SNAPPY"}
    write(table, "encodings.dictionary.old", version="1.0", **pages)
    # The dictionary becomes too large, and the rest of the column is not referred to it.
    write(table, "encodings.dictionary.overfull", dictionary_pagesize_limit=100, **pages)
    write(table, "encodings.plain.v2", use_dictionary=False, data_page_version="2.0", **pages)
    delta = encoding_options(table, "DELTA_BINARY_PACKED", "DELTA_LENGTH_BYTE_ARRAY", "DELTA_BYTE_ARRAY", "BYTE_STREAM_SPLIT")
    write(table, "encodings.delta.v1", **delta, **pages)
    write(table, "encodings.delta.whole", **delta, compression="SNAPPY", data_page_version="2.0")
    delta = encoding_options(table, "BYTE_STREAM_SPLIT", "DELTA_BYTE_ARRAY", "BYTE_STREAM_SPLIT", "PLAIN", flags="RLE")
    write(table, "encodings.split.v2", data_page_version="2.0", **delta, **pages)
    write(table, "encodings.split.v1", **delta, compression="LZ4")

    table = nested(21)
    for version in ("1.0", "2.0"):
        write(table, f"nested.v{version[0]}", compression="SNAPPY", data_page_version=version)
        write(table, f"nested.pages.v{version[0]}", data_page_version=version, data_page_size=60, write_batch_size=3,
              row_group_size=15, compression="GZIP", use_dictionary=False)
    write(table, "nested.item", use_compliant_nested_type=False, compression="LZ4")
    write(nested(0), "nothing.nested")

    # Repetitions at many distances, and literals of all lengths.
    source = random.Random(6)
    text = "".join(source.choice("ab") * source.randrange(1, 90) + str(source.random()) for _ in range(90))
    long = pa.table({"text": [text[:1], text[:61], text[:300], text, "x" * 3000]})
    for codec in ("snappy", "gzip", "lz4"):
        write(long, f"long.{codec}", compression=CODECS[codec], use_dictionary=False)

    data = library_rows()
    features = datasets.Features({
        "text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"]), "score": datasets.Value("float32"),
        "tags": datasets.List(datasets.Value("string")),
        "chat": [{"role": datasets.Value("string"), "content": datasets.Value("string")}],
        "answers": datasets.Sequence({"text": datasets.Value("string"), "start": datasets.Value("int32")}),
    })
    data_set = datasets.Dataset.from_dict(data, features=features)
    save("datasets.default", lambda path: data_set.to_parquet(path))
    frame = pandas.DataFrame({key: data[key] for key in ("text", "label", "score", "tags")})
    frame["day"] = pandas.date_range("2024-02-28", periods=len(frame))
    frame["kind"] = frame["text"].astype("category")
    save("pandas.snappy", lambda path: frame.to_parquet(path))
    frame = polars.DataFrame(data).with_columns(
        day=polars.lit(datetime.date(2024, 2, 29)), at=polars.lit(datetime.datetime(2024, 2, 29, 12, 34, 56, 789)),
        span=polars.lit(datetime.time(1, 2, 3)), price=polars.lit("12.50").cast(polars.Decimal(9, 2)),
        empty=polars.lit(None), kind=polars.col("text").cast(polars.Categorical))
    save("polars.snappy", lambda path: frame.write_parquet(path, compression="snappy"))
    save("polars.pages", lambda path: frame.write_parquet(path, compression="gzip", row_group_size=12, data_page_size=64, statistics=False))
    frame = pandas.DataFrame({key: data[key] for key in ("text", "label", "score")})
    frame.loc[3, "text"] = None
    save("fastparquet.snappy", lambda path: fastparquet.write(path, frame, compression="SNAPPY"))
    save("fastparquet.gzip", lambda path: fastparquet.write(path, frame, compression="GZIP", row_group_offsets=6))

    for name, content, rows in handmade.valid_files():
        (HERE / f"{name}.parquet").write_bytes(content)
        try:
            read = json.loads(json.dumps(rows_of(HERE / f"{name}.parquet")))
            assert read == rows or name in handmade.NOT_READ_BY_PYARROW, (name, read, rows)
        except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
            assert name in handmade.NOT_READ_BY_PYARROW, (name, error)
        base = name.split(".")[0]
        if base not in save.known:
            save.known.add(base)
            write_json(base, rows)

    # Files that are refused: the error's case and a part of its text.
    refused = {}
    small = pa.table({"n": pa.array([1, 2, 3], pa.int32()), "text": ["a", "b", "c"]})
    for codec in ("zstd", "brotli"):
        pq.write_table(small, REFUSED / f"{codec}.parquet", compression=codec)
        refused[codec] = ["unsupportedCodec", f"column n: compressed with {codec}"]
    pq.write_table(pa.table({"text": ["a"], "image": [b"\xff\xd8\xff\xe0 and more"]}), REFUSED / "bytes.parquet")
    refused["bytes"] = ["notText", "column image: expected UTF-8 text, found other bytes, which begin with ffd8ffe020616e64"]
    for name, content, case, text in handmade.refused_files():
        (REFUSED / f"{name}.parquet").write_bytes(content)
        refused[name] = [case, text]
    (REFUSED / "errors.json").write_text(json.dumps(refused, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
