"""Parquet files byte by byte: spellings that no library writes any more, and damaged files."""
import gzip
import itertools
import struct
import zlib

BOOLEAN, INT32, INT64, INT96, FLOAT, DOUBLE, BYTE_ARRAY, FIXED = range(8)
REQUIRED, OPTIONAL, REPEATED = range(3)
UTF8, MAP, MAP_KEY_VALUE, LIST = 0, 1, 2, 3
PLAIN, PLAIN_DICTIONARY, RLE, BIT_PACKED, DELTA, DELTA_LENGTH, DELTA_BYTES, RLE_DICTIONARY, SPLIT = 0, 2, 3, 4, 5, 6, 7, 8, 9
NONE, SNAPPY, GZIP, LZ4, LZ4_RAW = 0, 1, 2, 5, 7

# pyarrow packs these levels from the lowest bit up, the format's description from the highest bit down.
# The far times are beyond the years that Python has; NumPy prints them so.
NOT_READ_BY_PYARROW = {"packed", "far-times"}


# Thrift's compact protocol: a structure is a list of (number, kind, value).

def varint(value):
    out = bytearray()
    while True:
        byte, value = value & 0x7F, value >> 7
        out.append(byte | (0x80 if value else 0))
        if not value:
            return bytes(out)


def zigzag(value):
    return varint((value << 1 ^ value >> 63) & (1 << 64) - 1)


KINDS = {"i8": 3, "i16": 4, "i32": 5, "i64": 6, "binary": 8, "list": 9, "struct": 12}


def thrift_value(kind, value):
    if kind == "struct":
        return thrift(value)
    if kind == "binary":
        value = value.encode() if isinstance(value, str) else value
        return varint(len(value)) + value
    if kind == "list":
        element, values = value
        head = bytes([len(values) << 4 | KINDS[element]]) if len(values) < 15 else bytes([0xF0 | KINDS[element]]) + varint(len(values))
        return head + b"".join(thrift_value(element, v) for v in values)
    return bytes([value & 0xFF]) if kind == "i8" else zigzag(value)


def thrift(fields):
    out, last = b"", 0
    for number, kind, value in fields:
        if value is None:
            continue
        code = (1 if value else 2) if kind == "bool" else KINDS[kind]
        step = number - last
        out += bytes([step << 4 | code]) if 0 < step < 16 else bytes([code]) + zigzag(number)
        last = number
        if kind != "bool":
            out += thrift_value(kind, value)
    return out + b"\0"


# Levels, values, pages, files.

def runs(values, width):
    out = b""
    for value, group in itertools.groupby(values):
        out += varint(len(list(group)) << 1) + value.to_bytes((width + 7) // 8, "little")
    return out


def packed_runs(values, width, pad=True):
    groups = (len(values) + 7) // 8
    bits = sum(value << i * width for i, value in enumerate(values))
    count = groups * width if pad else (len(values) * width + 7) // 8
    return varint(groups << 1 | 1) + bits.to_bytes(groups * width, "little")[:count]


def deltas(values):
    """DELTA_BINARY_PACKED, in blocks of one part."""
    out = varint(128) + varint(1) + varint(len(values)) + zigzag(values[0])
    steps = [after - before for before, after in zip(values, values[1:])]
    for start in range(0, len(steps), 128):
        block = steps[start:start + 128]
        width = (max(block) - min(block)).bit_length()
        bits = sum(step - min(block) << i * width for i, step in enumerate(block))
        out += zigzag(min(block)) + bytes([width]) + bits.to_bytes(16 * width, "little")
    return out


def sized(content):
    return struct.pack("<I", len(content)) + content


def levels(values, highest):
    return sized(runs(values, highest.bit_length())) if highest else b""


def integers(values):
    return b"".join(struct.pack("<i", value) for value in values)


def texts(values):
    return b"".join(sized(value.encode()) for value in values)


def page(content, count, encoding=PLAIN, size=None, compressed=None, levels_as=RLE, more=()):
    compressed = content if compressed is None else compressed
    data = [(1, "i32", count), (2, "i32", encoding), (3, "i32", levels_as), (4, "i32", levels_as)]
    return thrift([(1, "i32", 0), (2, "i32", len(content) if size is None else size), (3, "i32", len(compressed)),
                   (5, "struct", data), *more]) + compressed


def later_page(repetitions, definitions, content, count, encoding=PLAIN, compressed=None, is_compressed=None, lengths=None):
    compressed = content if compressed is None else compressed
    before = len(repetitions) + len(definitions)
    lengths = lengths or (len(definitions), len(repetitions))
    data = [(1, "i32", count), (2, "i32", 0), (3, "i32", count), (4, "i32", encoding), (5, "i32", lengths[0]),
            (6, "i32", lengths[1]), (7, "bool", is_compressed)]
    return thrift([(1, "i32", 3), (2, "i32", before + len(content)), (3, "i32", before + len(compressed)),
                   (8, "struct", data)]) + repetitions + definitions + compressed


def dictionary_page(content, count):
    return thrift([(1, "i32", 2), (2, "i32", len(content)), (3, "i32", len(content)),
                   (7, "struct", [(1, "i32", count), (2, "i32", PLAIN_DICTIONARY)])]) + content


def element(name, repetition=None, type=None, children=None, converted=None, length=None, scale=None, logical=None):
    return [(1, "i32", type), (2, "i32", length), (3, "i32", repetition), (4, "binary", name), (5, "i32", children),
            (6, "i32", converted), (7, "i32", scale), (8, "i32", None if scale is None else 9), (10, "struct", logical)]


class Column:
    def __init__(self, path, type, count, pages, codec=NONE, dictionary=False, start=0, size=None, unpacked=None, more=()):
        self.path, self.type, self.count, self.pages, self.codec = path.split("."), type, count, b"".join(pages), codec
        self.dictionary, self.start, self.size, self.unpacked, self.more = dictionary, start, size, unpacked, list(more)


def build(schema, groups, rows=None, tail=b"PAR1", footer_size=None):
    """`groups`: pairs of a row count and columns."""
    out, written = b"PAR1", []
    for count, columns in groups:
        chunks = []
        for column in columns:
            offset = len(out) + column.start
            out += column.pages
            # The place of the data behind a dictionary is not read.
            metadata = [(1, "i32", column.type), (2, "list", ("i32", [PLAIN])), (3, "list", ("binary", column.path)),
                        (4, "i32", column.codec), (5, "i64", column.count), (6, "i64", column.unpacked or len(column.pages)),
                        (7, "i64", len(column.pages) if column.size is None else column.size),
                        (9, "i64", offset + (1 if column.dictionary else 0)), (11, "i64", offset if column.dictionary else None)]
            chunks.append([(2, "i64", offset), (3, "struct", metadata), *column.more])
        written.append([(1, "list", ("struct", chunks)), (2, "i64", 0), (3, "i64", count)])
    total = sum(count for count, _ in groups) if rows is None else rows
    footer = thrift([(1, "i32", 1), (2, "list", ("struct", schema)), (3, "i64", total), (4, "list", ("struct", written))])
    return out + footer + struct.pack("<I", len(footer) if footer_size is None else footer_size) + tail


def root(children):
    return element("schema", children=children)


def flat(values, **options):
    """A file with one column of integers that are not null."""
    column = Column("n", INT32, len(values), [page(integers(values), len(values))], **options)
    return [root(1), element("n", REQUIRED, INT32)], [(len(values), [column])]


def list_file(schema, path, type, rows, values, highest=1):
    """Lists in the older form: rows are None, or as many values as their number says."""
    repetitions, definitions = [], []
    for row in rows:
        if not row:
            repetitions.append(0)
            definitions.append(highest - 1 if row == 0 else highest - 2)
        else:
            repetitions += [0] + [1] * (row - 1)
            definitions += [highest] * row
    content = levels(repetitions, 1) + levels(definitions, highest) + values
    return build([root(1), *schema], [(len(rows), [Column(path, type, len(definitions), [page(content, len(definitions))])])])


def valid_files():
    """Name, content and rows."""
    numbers = [{"v": [1, 2]}, {"v": None}, {"v": []}, {"v": [3]}]
    yield "two-levels", list_file(
        [element("v", OPTIONAL, children=1, converted=LIST), element("element", REPEATED, INT32)],
        "v.element", INT32, [2, None, 0, 1], integers([1, 2, 3]), 2), numbers
    structures = [{"v": [{"name": "a"}, {"name": "b"}]}, {"v": None}, {"v": []}]
    for spelling in ("array", "v_tuple"):
        yield f"structures.{spelling}", list_file(
            [element("v", OPTIONAL, children=1, converted=LIST), element(spelling, REPEATED, children=1),
             element("name", REQUIRED, BYTE_ARRAY, converted=UTF8)],
            f"v.{spelling}.name", BYTE_ARRAY, [2, None, 0], texts(["a", "b"]), 2), structures
    for spelling in ("bag", "list"):
        yield f"three-levels.{spelling}", list_file(
            [element("v", OPTIONAL, children=1, converted=LIST), element(spelling, REPEATED, children=1),
             element("item", REQUIRED, INT32)],
            f"v.{spelling}.item", INT32, [2, None, 0, 1], integers([1, 2, 3]), 2), numbers
    yield "repeated", list_file(
        [element("v", REPEATED, INT32)], "v", INT32, [2, 0, 1], integers([1, 2, 3])), [{"v": [1, 2]}, {"v": []}, {"v": [3]}]

    # A repeated group outside of a list, and a list whose repeated group has two parts.
    for name, schema, prefix, highest, wrap in (
            ("repeated-group", [element("v", REPEATED, children=2)], "v", 1, []),
            ("two-parts", [element("v", REQUIRED, children=1, converted=LIST), element("e", REPEATED, children=2)], "v.e", 1, [])):
        parts = [element("a", REQUIRED, INT32), element("b", OPTIONAL, INT32)]
        first = levels([0, 1, 0], 1) + levels([1, 1, 0], highest) + integers([1, 2])
        second = levels([0, 1, 0], 1) + levels([2, 1, 0], highest + 1) + integers([3])
        yield name, build([root(1), *schema, *parts], [(2, [
            Column(f"{prefix}.a", INT32, 3, [page(first, 3)]), Column(f"{prefix}.b", INT32, 3, [page(second, 3)])])]), [
            {"v": [{"a": 1, "b": 3}, {"a": 2, "b": None}]}, {"v": []}]

    # Lists of lists, both in the older form.
    content = levels([0, 2, 1, 0, 0], 2) + levels([2, 2, 2, 1, 0], 2) + integers([1, 2, 3])
    yield "lists-in-lists", build(
        [root(1), element("v", REQUIRED, children=1, converted=LIST), element("array", REPEATED, children=1, converted=LIST),
         element("array", REPEATED, INT32)],
        [(3, [Column("v.array.array", INT32, 5, [page(content, 5)])])]), [{"v": [[1, 2], [3]]}, {"v": [[]]}, {"v": []}]

    for name, outer, inner in (("maps.old", MAP_KEY_VALUE, None), ("maps.both", MAP, MAP_KEY_VALUE)):
        keys = levels([0, 1, 0, 0], 1) + levels([2, 2, 1, 0], 2) + texts(["a", "b"])
        values = levels([0, 1, 0, 0], 1) + levels([3, 2, 1, 0], 3) + integers([7])
        yield name, build(
            [root(1), element("m", OPTIONAL, children=1, converted=outer), element("map", REPEATED, children=2, converted=inner),
             element("k", REQUIRED, BYTE_ARRAY, converted=UTF8), element("v", OPTIONAL, INT32)],
            [(3, [Column("m.map.k", BYTE_ARRAY, 4, [page(keys, 4)]), Column("m.map.v", INT32, 4, [page(values, 4)])])]), [
            {"m": [{"key": "a", "value": 7}, {"key": "b", "value": None}]}, {"m": []}, {"m": None}]

    # Levels of two bits from the highest bit down: 0 1 2 | 2 0 1, and a page without the levels' other byte.
    schema = [root(1), element("s", OPTIONAL, children=1), element("n", OPTIONAL, INT32)]
    content = bytes([0b00011010, 0b00010000]) + integers([5, 6])
    yield "packed", build(schema, [(6, [Column("s.n", INT32, 6, [page(content, 6, levels_as=BIT_PACKED)])])]), [
        {"s": None}, {"s": {"n": None}}, {"s": {"n": 5}}, {"s": {"n": 6}}, {"s": None}, {"s": {"n": None}}]

    # The same rows in pages of several kinds.
    schema = [root(1), element("n", OPTIONAL, INT32)]
    rows = [{"n": n} for n in (10, None, 20, 30, 20, 10, None, None, 30, 10, 10)]
    present = [0 if row["n"] is None else 1 for row in rows]
    values = [row["n"] for row in rows if row["n"] is not None]
    places = [value // 10 - 1 for value in values]
    dictionary = dictionary_page(integers([10, 20, 30]), 3)
    plain = integers(values)

    def one(pages, **options):
        return build(schema, [(11, [Column("n", INT32, 11, pages, **options)])])

    yield "pages.runs", one([page(levels(present, 1) + plain, 11)]), rows
    # What the pages unpack to is told twice; the footer's word does not count.
    for name, size in (("much", (1 << 63) - 1), ("negative", -1 << 63)):
        yield f"pages.{name}", one([page(levels(present, 1) + plain, 11)], unpacked=size), rows
    yield "pages.packed-levels", one([page(sized(packed_runs(present, 1)) + plain, 11)]), rows
    for name, encoding in (("old-dictionary", PLAIN_DICTIONARY), ("dictionary", RLE_DICTIONARY)):
        content = levels(present, 1) + b"\2" + packed_runs(places, 2)
        yield f"pages.{name}", one([dictionary, page(content, 11, encoding)], dictionary=True), rows
    content = levels(present, 1) + b"\2" + packed_runs(places, 2, pad=False)
    yield "pages.unpadded", one([dictionary, page(content, 11, RLE_DICTIONARY)], dictionary=True), rows
    content = levels(present, 1) + b"\x11" + runs(places, 17)
    yield "pages.wide-references", one([dictionary, page(content, 11, RLE_DICTIONARY)], dictionary=True), rows
    # An index page in between, a page without values, and statistics and fields that are not known.
    index = thrift([(1, "i32", 1), (2, "i32", 3), (3, "i32", 3), (6, "struct", [])]) + b"abc"
    unknown = [(6000, "struct", [(1, "binary", "x"), (2, "list", ("i64", list(range(20)))), (3, "bool", True)])]
    yield "pages.unknown-parts", one(
        [dictionary, page(levels(present, 1) + plain, 11, more=unknown)], dictionary=True), rows
    for name, compressed in (
            ("gzip", gzip.compress(plain)), ("zlib", zlib.compress(plain)),
            ("members", gzip.compress(plain[:10]) + gzip.compress(plain[10:]))):
        yield f"pages.{name}", one([later_page(b"", runs(present, 1), plain, 11, compressed=compressed)], codec=GZIP), rows
    yield "pages.not-compressed", one([later_page(b"", runs(present, 1), plain, 11, is_compressed=False)], codec=SNAPPY), rows
    # Snappy: a literal with a length of its own byte, and repetitions at distances of one, two and four bytes.
    content = integers([1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1] + [2] * 4)
    compressed = varint(len(content)) + b"\xf0\x04\1\0\0\0\1" + b"\x01\x04" + b"\x96\x04\0" + bytes([1 << 2 | 3]) + b"\x04\0\0\0"
    used = 5 + 4 + 38 + 2
    rest = content[used:]
    compressed += bytes([len(rest) - 1 << 2]) + rest
    column = Column("n", INT32, 20, [page(content, 20, compressed=compressed)], codec=SNAPPY)
    yield "snappy-distances", build([root(1), element("n", REQUIRED, INT32)], [(20, [column])]), (
        [{"n": 1}] * 16 + [{"n": 2}] * 4)

    # Types in the older words alone.
    converted = {"UINT_8": 11, "UINT_16": 12, "UINT_32": 13, "UINT_64": 14, "INT_8": 15, "INT_16": 16, "DATE": 6,
                 "TIME_MILLIS": 7, "TIME_MICROS": 8, "TIMESTAMP_MILLIS": 9, "TIMESTAMP_MICROS": 10, "ENUM": 4, "JSON": 19}
    sizes = {"UINT_64": INT64, "TIME_MICROS": INT64, "TIMESTAMP_MILLIS": INT64, "TIMESTAMP_MICROS": INT64,
             "ENUM": BYTE_ARRAY, "JSON": BYTE_ARRAY}
    stored = {"UINT_8": 255, "UINT_16": 65535, "UINT_32": -1, "UINT_64": -1, "INT_8": -128, "INT_16": -32768, "DATE": 19782,
              "TIME_MILLIS": 3723004, "TIME_MICROS": 3723000005, "TIMESTAMP_MILLIS": -1, "TIMESTAMP_MICROS": 1709210096000789,
              "ENUM": "RED", "JSON": '{"a": [1]}'}
    row = {"UINT_8": 255, "UINT_16": 65535, "UINT_32": 4294967295, "UINT_64": 18446744073709551615, "INT_8": -128, "INT_16": -32768,
           "DATE": "2024-02-29", "TIME_MILLIS": "01:02:03.004000", "TIME_MICROS": "01:02:03.000005",
           "TIMESTAMP_MILLIS": "1969-12-31 23:59:59.999000+00:00", "TIMESTAMP_MICROS": "2024-02-29 12:34:56.000789+00:00",
           "ENUM": "RED", "JSON": '{"a": [1]}'}
    columns = []
    for name in converted:
        kind = sizes.get(name, INT32)
        content = texts([stored[name]]) if kind == BYTE_ARRAY else struct.pack("<i" if kind == INT32 else "<q", stored[name])
        columns.append(Column(name, kind, 1, [page(content, 1)]))
    yield "converted", build(
        [root(len(converted)), *(element(name, REQUIRED, sizes.get(name, INT32), converted=code) for name, code in converted.items())],
        [(1, columns)]), [row]

    # The least and the largest milliseconds, microseconds and nanoseconds since 1970.
    ends = {"ms": ["-292275055-05-16 16:47:04.192000", "292278994-08-17 07:12:55.807000"],
            "us": ["-290308-12-21 19:59:05.224192", "294247-01-10 04:00:54.775807"],
            "ns": ["1677-09-21 00:12:43.145224192", "2262-04-11 23:47:16.854775807"]}
    content = struct.pack("<qq", -1 << 63, (1 << 63) - 1)
    yield "far-times", build(
        [root(3), *(element(name, REQUIRED, INT64, logical=[(8, "struct", [(1, "bool", False), (2, "struct", [(unit, "struct", [])])])])
                    for unit, name in enumerate(ends, 1))],
        [(2, [Column(name, INT64, 2, [page(content, 2)]) for name in ends])]), [
        {name: texts[row] for name, texts in ends.items()} for row in range(2)]

    # Decimal numbers in byte arrays of any length.
    decimals = [b"\x00", b"\xff", b"\x04\xd2", b"\x80", b"\x7f" + b"\xff" * 15, b"\x00" * 6 + b"\x01"]
    column = Column("d", BYTE_ARRAY, len(decimals), [page(b"".join(map(sized, decimals)), len(decimals))])
    yield "decimals", build(
        [root(1), element("d", REQUIRED, BYTE_ARRAY, converted=5, scale=2,
                          logical=[(5, "struct", [(1, "i32", 2), (2, "i32", 38)])])],
        [(len(decimals), [column])]), [
        {"d": text} for text in ("0.00", "-0.01", "12.34", "-1.28", "1701411834604692317316873037158841057.27", "0.01")]


def refused_files():
    """Name, content, the error's case and a part of its text."""
    schema, groups = flat([1, 2, 3])
    whole = build(schema, groups)
    yield "empty", b"", "notParquet", "it has 0 bytes, expected at least 12"
    yield "short", b"PAR1PAR1", "notParquet", "it has 8 bytes"
    yield "start", b"XAR1" + whole[4:], "notParquet", "begins with the bytes 58415231"
    yield "cut", whole[:-20], "notParquet", "it may be incomplete"
    yield "encrypted", whole[:-4] + b"PARE", "encrypted", "the footer is encrypted"
    yield "footer-size", build(schema, groups, footer_size=1 << 31), "malformedFooter", "it takes 2147483648 bytes"
    yield "row-count", build(schema, groups, rows=4), "malformedFooter", "4 rows, the row groups have 3"
    yield "negative", build(schema, groups, rows=-1), "malformedFooter", "-1 rows"
    yield "many-rows", build(schema, groups, rows=1 << 62), "tooLarge", "rows, expected at most"

    _, groups = flat([1, 2, 3], more=[(8, "struct", [])])
    yield "encrypted-column", build(schema, groups), "encrypted", "the column n is encrypted"
    _, groups = flat([1, 2, 3], more=[(1, "binary", "elsewhere")])
    groups[0][1][0].more.clear()
    yield "column-count", build([root(2), element("n", REQUIRED, INT32), element("m", REQUIRED, INT32)], groups), \
        "malformedFooter", "row group 0 has 1 columns, expected 2"
    yield "other-column", build([root(1), element("m", REQUIRED, INT32)], groups), "malformedColumn", "has the column n in its place"
    yield "other-type", build([root(1), element("n", REQUIRED, INT64)], groups), "malformedColumn", "stores it as INT32, expected INT64"
    for name, options in (("offset", {"start": 10_000}), ("before", {"start": -10_000}), ("length", {"size": 1 << 40}), ("negative-length", {"size": -1})):
        yield f"chunk-{name}", build(schema, flat([1, 2, 3], **options)[1]), "malformedColumn", "its pages take"
    yield "chunk-cut", build(schema, flat([1, 2, 3], size=25)[1]), "malformedColumn", "are left"

    def column(pages, count=3, **options):
        return build(schema, [(count, [Column("n", INT32, count, pages, **options)])])

    content = integers([1, 2, 3])
    yield "page-size", column([page(content, 3, compressed=content, size=1 << 23)]), "malformedColumn", "a page of 12 bytes, its header says 8388608"
    yield "page-negative", column([page(content, 3, size=-5)]), "malformedColumn", "decompress to -5"
    yield "page-beyond", column([page(content, 3)[:-4]]), "malformedColumn", "a page takes 12 bytes, 8 are left"
    yield "page-values", column([page(content, 1 << 30)]), "malformedColumn", "a page of 1073741824 values, the column has 3 left"
    yield "page-few", column([page(integers([1]), 1)]), "malformedColumn", "the pages end after 1 values, expected 3"
    yield "page-short", column([page(content[:8], 3)]), "malformedColumn", "the values takes 12 bytes, 8 are left"
    yield "page-kind", column([thrift([(1, "i32", 9), (2, "i32", 0), (3, "i32", 0)])]), "malformedColumn", "a page of the kind 9"
    yield "encoding", column([page(content, 3, 77)]), "unsupportedEncoding", "in the encoding number 77"
    yield "encoding-type", column([page(content, 3, DELTA_LENGTH)]), "unsupportedEncoding", "type INT32 in the encoding DELTA_LENGTH_BYTE_ARRAY"
    yield "no-dictionary", column([page(b"\1" + runs([0, 1, 0], 1), 3, RLE_DICTIONARY)]), "malformedColumn", "a dictionary, and there is none"
    dictionary = dictionary_page(integers([7, 8]), 2)
    yield "reference", column([dictionary, page(b"\2" + runs([0, 1, 2], 2), 3, RLE_DICTIONARY)], dictionary=True), \
        "malformedColumn", "place 2 of the dictionary, which has 2"
    yield "reference-width", column([dictionary, page(b"\x21" + runs([0, 1, 2], 33), 3, RLE_DICTIONARY)], dictionary=True), \
        "malformedColumn", "of 33 bits"
    yield "dictionary-size", column([dictionary_page(integers([7, 8]), 1 << 30)], dictionary=True), "malformedColumn", "bytes, 8 are left"
    yield "two-dictionaries", column([dictionary, dictionary], dictionary=True), "malformedColumn", "a second dictionary"
    for name, codec, compressed, text in (
            ("snappy-size", SNAPPY, varint(1 << 23) + content, "bytes cannot decompress"),
            ("gzip", GZIP, gzip.compress(content)[:-9], "does not decompress to the 12 bytes"),
            ("gzip-more", GZIP, gzip.compress(content * 2), "does not decompress to the 12 bytes"),
            ("gzip-less", GZIP, gzip.compress(content[:4]), "does not decompress to the 12 bytes"),
            ("snappy-lie", SNAPPY, b"\x0d\x30" + content, "expected at most 12"),
            ("snappy-less", SNAPPY, b"\x0c\x0c" + content[:4], "become 4 bytes, they say 12"),
            ("snappy-distance", SNAPPY, b"\x0c\x00\x01\x01\x09", "repeat what is 9 bytes before"),
            ("snappy-zero", SNAPPY, b"\x0c\x00\x01\x01\x00", "repeat what is 0 bytes before"),
            ("lz4-distance", LZ4_RAW, b"\x10\x01\xff\xff\x00", "repeat what is 65535 bytes before"),
            ("lz4-more", LZ4_RAW, b"\x1f\x01\x01\x00\xff\x00", "more bytes than its header says")):
        size = 1 << 23 if name == "snappy-size" else 12
        yield name, column([page(content, 3, compressed=compressed, size=size)], codec=codec), "malformedColumn", text
    yield "lz4-hadoop", column([page(content, 3)], codec=LZ4), "unsupportedCodec", "compressed with lz4 in Hadoop's frames"
    yield "codec", column([page(content, 3)], codec=99), "unsupportedCodec", "the unknown codec 99"
    yield "later-lengths", column([later_page(b"", b"", content, 3, lengths=(1 << 30, 0))]), "malformedColumn", "definition levels takes"

    optional = [root(1), element("n", OPTIONAL, INT32)]

    def levelled(content, count=3):
        return build(optional, [(count, [Column("n", INT32, count, [page(content, count)])])])

    yield "level", levelled(sized(b"\x06\x02") + content), "malformedColumn", "a level is 2, expected at most 1"
    yield "levels-short", levelled(sized(b"\x04\x01") + content), "malformedColumn", "the bytes end before a run"
    yield "levels-size", levelled(struct.pack("<I", 1 << 31) + content), "malformedColumn", "levels takes 2147483648 bytes"
    yield "run", levelled(sized(b"\x00\x01") + content), "malformedColumn", "a run of 0 values"

    # A million values in a few bytes are read, a hundred million in a file of this size are not.
    many = 100_000_000
    yield "many-values", levelled(sized(varint(many << 1) + b"\0"), many), "tooLarge", "rows, expected at most"
    # A list of lists and so on, thirty of them in each of half a million rows.
    path = [f"l{n}" for n in range(30)]
    schema = [root(1), *(element(name, REPEATED, children=1) for name in path), element("n", REQUIRED, INT32)]
    count = 500_000
    content = levels([0] * count, 30) + levels([29] * count, 30)
    yield "many-lists", build(schema, [(count, [Column(".".join(path + ["n"]), INT32, count, [page(content, count)])])]), \
        "tooLarge", "values with their structures and lists"
    yield "deep", build([root(1), *(element(f"g{n}", OPTIONAL, children=1) for n in range(200)), element("n", OPTIONAL, INT32)], []), \
        "malformedFooter", "more than 64 levels"
    yield "children", build([root(1), element("g", OPTIONAL, children=7), element("n", OPTIONAL, INT32)], []), "malformedFooter", "has 7 parts"
    yield "children-left", build([root(1), element("n", OPTIONAL, INT32), element("m", OPTIONAL, INT32)], []), "malformedFooter", "belong to no column"
    yield "children-missing", build([root(1), element("g", OPTIONAL, children=1)], []), "malformedFooter", "ends after 2 elements"
    yield "children-negative", build([root(-1), element("n", OPTIONAL, INT32)], []), "malformedFooter", "-1 parts"
    yield "no-schema", build([], []), "malformedFooter", "there is no schema"
    yield "no-type", build([root(1), element("n", OPTIONAL)], []), "malformedFooter", "expected either parts or a type"
    yield "same-names", build([root(2), element("n", OPTIONAL, INT32), element("n", OPTIONAL, INT32)], []), "malformedFooter", "the name \"n\""
    yield "fixed-length", build([root(1), element("n", OPTIONAL, FIXED, length=0)], []), "malformedFooter", "values of 0 bytes"
    yield "annotation", build([root(1), element("n", OPTIONAL, DOUBLE, converted=6)], []), "malformedFooter", "stored as DOUBLE, which cannot hold date"
    yield "list", build([root(1), element("v", OPTIONAL, children=1, converted=LIST), element("n", OPTIONAL, INT32)], []), \
        "malformedFooter", "has no single repeated part"
    yield "interval", build([root(1), element("n", REQUIRED, FIXED, length=12, converted=21)], [
        (1, [Column("n", FIXED, 1, [page(b"a" * 12, 1)])])]), "unsupportedType", "type INTERVAL"
    yield "time", build([root(1), element("n", REQUIRED, INT32, converted=7)], [
        (1, [Column("n", INT32, 1, [page(integers([86_400_000]), 1)])])]), "malformedColumn", "the time of day is 86400000"

    # Columns that do not go together.
    pair = [root(1), element("v", REPEATED, children=2), element("a", REQUIRED, INT32), element("b", REQUIRED, INT32)]

    def two(first, second):
        return build(pair, [(2, [
            Column(f"v.{name}", INT32, 3, [page(levels(repetitions, 1) + levels(definitions, 1) + integers([1] * sum(definitions)), 3)])
            for name, (repetitions, definitions) in (("a", first), ("b", second))])])

    whole = ([0, 1, 0], [1, 1, 1])
    yield "lists-differ", two(whole, ([0, 0, 1], [1, 1, 1])), "malformedColumn", "a repetition level is 0, expected 1"
    yield "lists-disagree", two(whole, ([0, 1, 0], [1, 1, 0])), "malformedColumn", "do not agree"
    yield "lists-start", two(([1, 1, 0], [1, 1, 1]), whole), "malformedColumn", "a repetition level is 1, expected 0"
    yield "lists-more", two(([0, 0, 0], [1, 1, 1]), ([0, 0, 0], [1, 1, 1])), "malformedColumn", "are left after all rows"
    # Each value repeats a long one before it and adds a byte.
    length, values = 100_000, 4000
    content = deltas([0] + [length] * (values - 1)) + deltas([length] + [1] * (values - 1)) + b"a" * length + b"b" * (values - 1)
    yield "growth", build([root(1), element("n", REQUIRED, BYTE_ARRAY, converted=UTF8)], [
        (values, [Column("n", BYTE_ARRAY, values, [page(content, values, DELTA_BYTES, compressed=gzip.compress(content, 9))], codec=GZIP)])]), \
        "tooLarge", "bytes or more unpacked"
