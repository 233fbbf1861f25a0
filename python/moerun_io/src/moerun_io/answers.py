"""moerun's HDF5 output as Arrow record batches (the format: moerun's docs/formats.md, *Output*)."""
import os

import h5py
import numpy as np
import pyarrow as pa

from moerun_io.errors import InputError

BATCH_ROWS = 4096


def _offsets(values):
    return pa.array(np.asarray(values - values[0], np.int64))


class _Column:
    """One column of the answers: its Arrow type, and how entries [begin, end) of it are read: of the job's rows, or where rows
    have several answers (`of_answers`) of all answers."""

    def __init__(self, name, of, read, of_answers=False):
        self.name, self.type, self.read, self.of_answers = name, of, read, of_answers


class Answers:
    """An output that is whole, read by the job's rows. Where rows have several answers (`several`), each is a row of what is read,
    with the columns `row` and `answer_index` first. Throws InputError where it is not one."""

    def __init__(self, path):
        self.path = path
        try:
            self._file = h5py.File(path, "r")
        except OSError as error:
            hint = "; the job has not finished: run its command again" if os.path.isdir(f"{path}.run") else ""
            raise InputError(f"{path}: {error}{hint}") from error
        try:
            self._results = self._file["results"]
            self.num_rows = len(self._results["prompt_length"])
            self.several = "answer_row" in self._results
            # The first answer of each row, and one past the last.
            self._first = np.searchsorted(self._results["answer_row"][:], np.arange(self.num_rows + 1)) if self.several else None
        except KeyError as error:
            self._file.close()
            raise InputError(f"{path} is no output of moerun: {error}") from error
        self.attributes = dict(self._file.attrs)
        self._columns = [column for column in self._make() if column is not None]
        self.names = [column.name for column in self._columns]

    def _make(self):
        results = self._results
        if self.several:
            yield _Column("row", pa.uint64(), lambda a, b: pa.array(results["answer_row"][a:b]), True)
            yield _Column("answer_index", pa.int32(), lambda a, b: pa.array(results["answer_index"][a:b]), True)
        integer_ids = np.issubdtype(results["id"].dtype, np.integer)
        yield _Column("id", pa.from_numpy_dtype(results["id"].dtype) if integer_ids else pa.string(),
                      (lambda a, b: pa.array(results["id"][a:b])) if integer_ids else self._strings("id"))
        yield _Column("prompt_length", pa.int32(), lambda a, b: pa.array(results["prompt_length"][a:b]))
        if "prompt_truncated" in results:
            yield _Column("prompt_truncated", pa.int32(), lambda a, b: pa.array(results["prompt_truncated"][a:b]))
        yield _Column("token_ids", pa.large_list(pa.int32()), self._lists("tokens", "offsets"), True)
        yield _Column("text", pa.large_string(), self._texts, True)
        yield _Column("finish_reason", pa.string(), self._strings("finish_reason"), True)
        yield _Column("error", pa.string(), self._errors)
        if "logprobs" in results:
            yield _Column("logprobs", pa.large_list(pa.float32()), self._lists("logprobs", "offsets"), True)
        if "top_tokens" in results:
            yield _Column("top_tokens", pa.large_list(pa.list_(pa.int32(), results["top_tokens"].shape[1])), self._lists("top_tokens", "offsets"), True)
            yield _Column("top_logprobs", pa.large_list(pa.list_(pa.float32(), results["top_logprobs"].shape[1])),
                          self._lists("top_logprobs", "offsets"), True)
        if "prompt_logprobs" in results:
            yield _Column("prompt_logprobs", pa.large_list(pa.float32()), self._lists("prompt_logprobs", "prompt_offsets"))
        if "prompt_top_tokens" in results:
            yield _Column("prompt_top_tokens", pa.large_list(pa.list_(pa.int32(), results["prompt_top_tokens"].shape[1])),
                          self._lists("prompt_top_tokens", "prompt_offsets"))
            yield _Column("prompt_top_logprobs", pa.large_list(pa.list_(pa.float32(), results["prompt_top_logprobs"].shape[1])),
                          self._lists("prompt_top_logprobs", "prompt_offsets"))
        if "prompt_is_greedy" in results:
            yield _Column("prompt_is_greedy", pa.large_list(pa.uint8()), self._lists("prompt_is_greedy", "prompt_offsets"))

        if "routed_experts" in results:
            for name, offsets, of_answers in (("prompt_routed_experts", "prompt_routed_offsets", False), ("routed_experts", "offsets", True)):
                layers, experts = results[name].shape[1:]
                of = pa.list_(pa.list_(pa.from_numpy_dtype(results[name].dtype), experts), layers)
                yield _Column(name, pa.large_list(of), self._lists(name, offsets), of_answers)

    def _strings(self, name):
        return lambda a, b: pa.array([value.decode() if isinstance(value, bytes) else str(value) for value in self._results[name][a:b]], pa.string())

    def _errors(self, a, b):
        values = self._strings("error")(a, b)
        return pa.array([value or None for value in values.to_pylist()], pa.string())

    def _lists(self, name, offsets):
        def read(a, b):
            ends = self._results[offsets][a : b + 1].astype(np.int64)
            values = self._results[name][ends[0] : ends[-1]]
            inner = pa.array(values.reshape(-1))
            for size in reversed(values.shape[1:]):
                inner = pa.FixedSizeListArray.from_arrays(inner, size)
            return pa.LargeListArray.from_arrays(_offsets(ends), inner)

        return read

    def _texts(self, a, b):
        ends = self._results["text_offsets"][a : b + 1].astype(np.int64)
        values = self._results["text"][ends[0] : ends[-1]]
        return pa.LargeStringArray.from_buffers(b - a, pa.py_buffer((ends - ends[0]).tobytes()), pa.py_buffer(values.tobytes()))

    @property
    def schema(self):
        return pa.schema([pa.field(column.name, column.type) for column in self._columns])

    def select(self, names):
        """The columns of these names alone, in this order."""
        by_name = {column.name: column for column in self._columns}
        for name in names:
            if name not in by_name:
                raise InputError(f"{self.path} has no column {name!r}; it has {', '.join(by_name)}")
        self._columns = [by_name[name] for name in names]
        self.names = list(names)
        return self

    def rows(self, begin, end):
        """Rows [begin, end) of the job as a RecordBatch."""
        try:
            arrays = [self._read(column, begin, end) for column in self._columns]
        except (OSError, KeyError) as error:
            raise InputError(f"{self.path}: rows {begin} to {end}: {error}") from error
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema)

    def places(self, begin, end):
        """For each answer to rows [begin, end) the row that it answers, from 0 = begin; None where each row has one answer."""
        return np.repeat(np.arange(end - begin), np.diff(self._first[begin : end + 1])) if self.several else None

    def _read(self, column, begin, end):
        if not self.several:
            return column.read(begin, end)
        if column.of_answers:
            return column.read(int(self._first[begin]), int(self._first[end]))
        return column.read(begin, end).take(pa.array(self.places(begin, end)))

    def close(self):
        self._file.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def iter_answers(path, columns=None, batch_rows=BATCH_ROWS):
    """Record batches in row order; memory does not grow with the output."""
    with Answers(path) as answers:
        if columns is not None:
            answers.select(columns)
        for begin in range(0, answers.num_rows, batch_rows):
            yield answers.rows(begin, min(answers.num_rows, begin + batch_rows))


def read(path, kind="arrow", columns=None):
    """The whole output as a pyarrow.Table, or with kind='pandas' as a DataFrame."""
    if kind not in ("arrow", "pandas"):
        raise InputError(f"kind must be 'arrow' or 'pandas', not {kind!r}")
    with Answers(path) as answers:
        if columns is not None:
            answers.select(columns)
        schema = answers.schema
    table = pa.Table.from_batches(iter_answers(path, columns), schema=schema)
    return table if kind == "arrow" else table.to_pandas()
