"""Parquet files → `Inputs`.

What a file says of its columns and pages is compared with the limits first: a few bytes can stand for any number of values.
"""

from serving.codecs.arrow import check_fields, table_to_inputs
from serving.codecs.json import check_row_count
from serving.codecs.limits import check_rows
from serving.codecs.media_types import Body
from serving.codecs.parquet_pages import check_pages, read_footer
from serving.errors import MalformedBody, UnsupportedMedia
from serving.model.schema import Inputs, Kind, Schema


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
    footer = read_footer(body)
    check_row_count(footer.n_rows, max_rows)
    check_rows(footer.n_rows, schema)
    names = _wanted(list(dict.fromkeys(leaf.name for leaf in footer.leaves)), schema)
    if not all(leaf.is_flat for leaf in footer.leaves if leaf.name in names):
        raise UnsupportedMedia("Parquet with columns of lists or structs is not read here; send JSON")
    if sum(leaf.name in names for leaf in footer.leaves) != len(names):
        raise MalformedBody("the Parquet file names a column twice")
    check_pages(body, footer, set(names))
    try:
        # With `read_dictionary` rows with the same long text share it.
        with pq.ParquetFile(pa.BufferReader(pa.py_buffer(body)), read_dictionary=names) as file:
            fields = pa.schema([file.schema_arrow.field(name) for name in names])
            is_matrix = check_fields(fields, schema)
            table = file.read(columns=names, use_threads=False)
        table.validate(full=True)
        return table_to_inputs(table.select(names), schema, is_matrix=is_matrix)
    except (pa.ArrowException, OSError, ValueError, LookupError, OverflowError) as error:
        raise MalformedBody("the body is not a complete and valid Parquet file") from error


def _wanted(names: list[str], schema: Schema) -> list[str]:
    """The signature's columns; for one tensor all but pandas' index."""
    if schema.columns[0].type.kind is Kind.TENSOR and len(schema.columns) == 1:
        return [name for name in names if not name.startswith("__index_level_")]
    return [name for name in schema.names if name in names]
