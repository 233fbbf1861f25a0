"""Tables by their file's ending: record batches in and out, one at a time."""
import contextlib
import json
import os

import pyarrow as pa
import pyarrow.csv
import pyarrow.ipc
import pyarrow.parquet

from moerun_io.errors import InputError

BATCH_ROWS = 4096
ENDINGS = ".parquet, .arrow, .feather, .arrows, .csv, .csv.gz or .tsv"


def kind_of(path):
    """'parquet', 'file' (Arrow IPC), 'stream' (Arrow IPC) or 'csv'."""
    name = os.fspath(path).lower()
    for ending, kind in ((".parquet", "parquet"), (".arrow", "file"), (".feather", "file"), (".arrows", "stream"),
                         (".csv", "csv"), (".csv.gz", "csv"), (".tsv", "csv"), (".tsv.gz", "csv")):
        if name.endswith(ending):
            return kind
    raise InputError(f"{path}: the ending must be {ENDINGS}")


def _delimiter(path):
    return "\t" if ".tsv" in os.path.basename(os.fspath(path)).lower() else ","


class Table:
    """A table that is read batch by batch. `schema` is known before the first. Throws InputError."""

    def __init__(self, path, text_columns=()):
        self.path = path
        self._kind = kind_of(path)
        self._open_files = contextlib.ExitStack()
        try:
            self._open(text_columns)
        except (OSError, pa.ArrowException) as error:
            raise InputError(f"{path}: {error}") from error

    def _open(self, text_columns):
        if self._kind == "parquet":
            # Buffered ahead, all that was read would stay in memory to the end of the file.
            self._file = pa.parquet.ParquetFile(self.path, pre_buffer=False)
            self.schema = self._file.schema_arrow
        elif self._kind == "file":
            self._source = self._open_files.enter_context(pa.memory_map(os.fspath(self.path)))
            self._file = pa.ipc.open_file(self._source)
            self.schema = self._file.schema
        elif self._kind == "stream":
            self._source = self._open_files.enter_context(pa.OSFile(os.fspath(self.path)))
            self._file = pa.ipc.open_stream(self._source)
            self.schema = self._file.schema
        else:
            # Prompts and ids are what the file says, also where it says 007 or nothing.
            convert = pa.csv.ConvertOptions(column_types={name: pa.string() for name in text_columns}, strings_can_be_null=False)
            self._file = pa.csv.open_csv(self.path, parse_options=pa.csv.ParseOptions(delimiter=_delimiter(self.path), newlines_in_values=True),
                                         convert_options=convert)
            self.schema = self._file.schema

    def batches(self):
        try:
            if self._kind == "parquet":
                yield from self._file.iter_batches(batch_size=BATCH_ROWS)
            elif self._kind == "file":
                for i in range(self._file.num_record_batches):
                    yield from _cut(self._file.get_batch(i))
            else:
                for batch in self._file:
                    yield from _cut(batch)
        except (OSError, pa.ArrowException) as error:
            raise InputError(f"{self.path}: {error}") from error

    def need(self, name, what):
        """The column's type; InputError when there is no such column."""
        index = self.schema.get_all_field_indices(name)
        if len(index) == 1:
            return self.schema.field(index[0]).type
        there = ", ".join(self.schema.names[:20]) or "none"
        raise InputError(f"{self.path}: {'no' if not index else 'more than one'} column {name!r} ({what}); columns: {there}")

    def close(self):
        if self._kind in ("parquet", "csv"):
            self._file.close()
        self._open_files.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def _cut(batch):
    for begin in range(0, batch.num_rows, BATCH_ROWS):
        yield batch.slice(begin, BATCH_ROWS)


@contextlib.contextmanager
def replacing(path, overwrite):
    """Yields a name beside `path` that becomes `path` when the body ends well, durably; else it is removed."""
    path = os.fspath(path)
    if os.path.lexists(path) and not overwrite:
        raise InputError(f"{path} is there already; give another name, or --overwrite")
    directory, name = os.path.split(path)
    # The ending stays last: writers choose by it.
    partial = os.path.join(directory, f".partial.{os.getpid()}.{name}")
    try:
        yield partial
        with open(partial, "rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
        descriptor = os.open(directory or ".", os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(partial)


def _for_csv(array):
    """Lists and structs as JSON texts: CSV has neither."""
    if not (pa.types.is_nested(array.type) or pa.types.is_binary(array.type) or pa.types.is_large_binary(array.type)):
        return array
    if not pa.types.is_nested(array.type):
        raise InputError(f"a column of type {array.type} cannot be written as CSV; write .parquet")
    return pa.array([None if v is None else json.dumps(v, ensure_ascii=False, default=str) for v in array.to_pylist()], pa.string())


class _CsvWriter:
    def __init__(self, path, schema):
        fields = [pa.field(f.name, pa.string() if pa.types.is_nested(f.type) else f.type) for f in schema]
        self._schema = pa.schema(fields)
        self._sink = pa.output_stream(path, compression="gzip" if path.lower().endswith(".gz") else None)
        self._writer = pa.csv.CSVWriter(self._sink, self._schema, write_options=pa.csv.WriteOptions(delimiter=_delimiter(path)))

    def write_batch(self, batch):
        self._writer.write_batch(pa.RecordBatch.from_arrays([_for_csv(column) for column in batch.columns], schema=self._schema))

    def close(self):
        self._writer.close()
        self._sink.close()


@contextlib.contextmanager
def table_writer(path, schema):
    """A writer with write_batch(batch), of the kind that `path` names."""
    kind = kind_of(path)
    if kind == "parquet":
        writer = pa.parquet.ParquetWriter(path, schema, compression="zstd")
    elif kind == "file":
        writer = pa.ipc.new_file(path, schema)
    elif kind == "stream":
        writer = pa.ipc.new_stream(path, schema)
    else:
        writer = _CsvWriter(path, schema)
    try:
        yield writer
    except BaseException:
        with contextlib.suppress(Exception):
            writer.close()
        raise
    writer.close()
