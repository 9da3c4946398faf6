"""Parquet files → `Inputs`.

What a file says of its columns and pages is compared with the limits first: a few bytes can stand for any number of values.
"""

from typing import Any

from serving.codecs.arrow import check_fields, table_to_inputs
from serving.codecs.json import check_row_count
from serving.codecs.limits import check_rows, check_weight
from serving.codecs.media_types import Body
from serving.codecs.parquet_pages import Pages
from serving.errors import MalformedBody, UnsupportedMedia
from serving.model.schema import Inputs, Kind, Schema

FOOTER_STRING_BYTES, FOOTER_ITEMS = 1_000_000, 200_000
"""Maximum of a text and of a list in a file's metadata."""


def parquet_to_inputs(body: Body, schema: Schema, max_rows: int) -> Inputs:
    """Reads a file whose columns have the names of the signature, in any order; other columns are not read.

    For a tensor signature the columns are the tensor's own, in order.

    Raises:
        MalformedBody: not Parquet, or damaged.
        UnsupportedMedia: columns of lists or structs.
        InvalidInput: columns are missing or of another type.
        PayloadTooLarge: too many rows, or too many values.
    """
    # Imported by the first Parquet request; see `serving.codecs.arrow`.
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not body:
        raise MalformedBody("the body is empty; expected a Parquet file")
    try:
        with pq.ParquetFile(
            pa.BufferReader(pa.py_buffer(body)),
            # Rows with the same long text share it.
            read_dictionary=schema.names,
            thrift_string_size_limit=FOOTER_STRING_BYTES,
            thrift_container_size_limit=FOOTER_ITEMS,
        ) as file:
            n_rows = sum(file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups))
            check_row_count(n_rows, max_rows)
            check_rows(n_rows, schema)
            names = _wanted(file.schema_arrow.names, schema)
            fields = pa.schema([file.schema_arrow.field(name) for name in names])
            is_matrix = check_fields(fields, schema)
            _check_pages(body, file.metadata, set(names), n_rows)
            table = file.read(columns=names, use_threads=False)
        table.validate(full=True)
        return table_to_inputs(table.select(names), schema, is_matrix=is_matrix)
    except (pa.ArrowException, OSError, ValueError, LookupError, OverflowError) as error:
        raise MalformedBody("the body is not a complete and valid Parquet file") from error


def _wanted(names: list[str], schema: Schema) -> list[str]:
    """The signature's columns; for one tensor all but pandas' index."""
    if len(set(names)) != len(names):
        raise MalformedBody("the Parquet file names a column twice")
    if schema.columns[0].type.kind is Kind.TENSOR and len(schema.columns) == 1:
        return [name for name in names if not name.startswith("__index_level_")]
    return [name for name in schema.names if name in names]


def _check_pages(body: Body, metadata: Any, names: set[str], n_rows: int) -> None:
    """Adds up what the pages of the columns say of their size.

    Raises:
        MalformedBody: they are damaged, or use an encoding that expands without limit.
        PayloadTooLarge: they are too large, or too many.
    """
    pages = Pages(body)
    fixed_bytes = 0
    for position in range(metadata.num_columns):
        described = metadata.schema.column(position)
        if described.path.partition(".")[0] not in names:
            continue
        if described.max_repetition_level or described.path not in names:
            raise UnsupportedMedia("Parquet with columns of lists or structs is not read here; send JSON")
        if described.physical_type == "FIXED_LEN_BYTE_ARRAY":
            fixed_bytes += described.length * n_rows
            check_weight(fixed_bytes, "the rows")
        for group in range(metadata.num_row_groups):
            pages.add(metadata.row_group(group).column(position))
