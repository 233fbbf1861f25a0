"""A table becomes moerun's input: .jsonl, or .h5 for text or token ids alone."""
import json
import math
import os

import h5py
import numpy as np
import pyarrow as pa

from moerun_io.errors import InputError
from moerun_io.tables import Table, replacing

PROMPTS = (("prompt", "prompt"), ("token_ids", "prompt_token_ids"), ("messages", "messages"))


def to_input(table, out, *, prompt=None, token_ids=None, messages=None, id=None, tools=None, sampling=None, overwrite=False):
    """Writes `out` (.jsonl or .h5) from the table file; returns the number of rows. The first four and `tools` name columns;
    `sampling` maps moerun's names to columns. Throws InputError; nothing is left under the name then."""
    asked = {"prompt": prompt, "token_ids": token_ids, "messages": messages}
    text = [name for name in (prompt or "prompt", messages or "messages", tools, id or "id") if name]
    if str(table).lower().endswith((".csv", ".csv.gz", ".tsv", ".tsv.gz")):
        with Table(table) as look:  # which of them are there
            text = [name for name in text if name in look.schema.names and (name != (id or "id") or not pa.types.is_integer(look.schema.field(name).type))]
    with Table(table, text_columns=text) as rows:
        kind, column = _choose(rows, asked)
        if id is None and "id" in rows.schema.names:
            id = "id"
        plan = _Plan(rows, kind, column, id, tools, sampling or {})
        name = str(out).lower()
        if not name.endswith((".jsonl", ".h5", ".hdf5")):
            raise InputError(f"{out}: the ending must be .jsonl or .h5")
        with replacing(out, overwrite) as partial:
            return _write_jsonl(rows, plan, partial) if name.endswith(".jsonl") else _write_h5(rows, plan, partial, out)


def _choose(rows, asked):
    given = [(kind, column) for kind, column in asked.items() if column]
    if not given:
        given = [(kind, default) for kind, default in PROMPTS if default in rows.schema.names]
    if len(given) != 1:
        options = "--prompt, --token-ids or --messages"
        found = " and ".join(column for _, column in given) or "none is there by its default name"
        raise InputError(f"{rows.path}: exactly one of {options} names the prompts' column ({found})")
    return given[0]


def _is_text(kind):
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _is_list(kind):
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


class _Plan:
    """Which columns become which fields, checked by their types."""

    def __init__(self, rows, kind, column, id, tools, sampling):
        self.path, self.kind, self.column, self.id, self.tools, self.sampling = rows.path, kind, column, id, tools, dict(sampling)
        of = rows.need(column, "the prompts")
        wrong = {
            "prompt": not _is_text(of),
            "token_ids": not (_is_list(of) and pa.types.is_integer(of.value_type)),
            "messages": not (_is_text(of) or _is_list(of)),
        }[kind]
        if wrong:
            wanted = {"prompt": "strings", "token_ids": "lists of integers", "messages": "lists of structs, or JSON texts"}[kind]
            raise InputError(f"{rows.path}: column {column!r} has {of}, and must have {wanted}")
        if id is not None:
            of = rows.need(id, "the ids")
            if not (_is_text(of) or pa.types.is_integer(of)):
                raise InputError(f"{rows.path}: column {id!r} has {of}; ids are strings or integers")
        if tools is not None:
            rows.need(tools, "the tools")
        for key, name in self.sampling.items():
            rows.need(name, f"sampling's {key}")

    def refuse(self, row, column, why):
        raise InputError(f"{self.path}: row {row}, column {column!r}: {why}")


def _without_nulls(value):
    """Arrow gives every struct of a column the fields of all; those that a message lacks are null."""
    if isinstance(value, dict):
        return {k: _without_nulls(v) for k, v in value.items() if v is not None}
    if isinstance(value, (list, tuple)):
        return [_without_nulls(v) for v in value]
    return value


def _json_or_value(plan, row, column, value):
    if not isinstance(value, str):
        return _without_nulls(value)
    try:
        return json.loads(value)
    except ValueError as error:
        plan.refuse(row, column, f"no JSON ({error})")


def _record(plan, row, values):
    record = {}
    if plan.id is not None:
        record["id"] = values[plan.id]
        if record["id"] is None:
            plan.refuse(row, plan.id, "an id is null")
    value = values[plan.column]
    if value is None:
        plan.refuse(row, plan.column, "the prompt is null")
    if plan.kind == "prompt":
        record["prompt"] = value
    elif plan.kind == "token_ids":
        if any(token is None for token in value):
            plan.refuse(row, plan.column, "a token id is null")
        record["prompt_token_ids"] = list(value)
    else:
        record["messages"] = _json_or_value(plan, row, plan.column, value)
        if not isinstance(record["messages"], list):
            plan.refuse(row, plan.column, "messages must be a list")
    if plan.tools is not None and values[plan.tools] is not None:
        record["tools"] = _json_or_value(plan, row, plan.tools, values[plan.tools])
    return {**record, **_sampling(plan, row, values)}


def _sampling(plan, row, values):
    """The row's keys of `sampling`; a null leaves the job's."""
    given = {}
    for key, column in plan.sampling.items():
        if values[column] is None:
            continue
        if isinstance(values[column], float) and not math.isfinite(values[column]):
            plan.refuse(row, column, f"{values[column]} is no number for {key}")
        given[key] = _without_nulls(values[column])
    return given


def _sampling_texts(plan, first, batch):
    """A JSON object a row of the batch, whose first row is number `first`; empty where the row gives nothing."""
    columns = {name: batch.column(name).to_pylist() for name in plan.sampling.values()}
    texts = []
    for i in range(batch.num_rows):
        given = _sampling(plan, first + i, {name: values[i] for name, values in columns.items()})
        try:
            texts.append(json.dumps(given, allow_nan=False) if given else "")
        except (TypeError, ValueError) as error:
            plan.refuse(first + i, next(iter(columns)), f"cannot be written as JSON ({error})")
    return texts


def _write_jsonl(rows, plan, path):
    names = list(dict.fromkeys(n for n in (plan.id, plan.column, plan.tools, *plan.sampling.values()) if n is not None))
    count = 0
    with open(path, "w", encoding="utf-8", newline="\n") as out:
        for batch in rows.batches():
            columns = [batch.column(name).to_pylist() for name in names]
            for values in zip(*columns):
                try:
                    out.write(json.dumps(_record(plan, count, dict(zip(names, values))), ensure_ascii=False, allow_nan=False) + "\n")
                except (TypeError, ValueError) as error:  # a date, a NaN deep in a message
                    plan.refuse(count, plan.column, f"cannot be written as JSON ({error})")
                except UnicodeEncodeError as error:
                    plan.refuse(count, plan.column, f"no UTF-8 ({error})")
                count += 1
    return count


class _Growing:
    """A one-dimensional dataset that grows by appending."""

    def __init__(self, group, name, dtype, chunk, **options):
        self.data = group.create_dataset(name, shape=(0,), maxshape=(None,), dtype=dtype, chunks=(chunk,), **options)

    def append(self, values):
        begin = self.data.shape[0]
        self.data.resize(begin + len(values), axis=0)
        self.data[begin:] = values


def _write_h5(rows, plan, path, out):
    if plan.kind == "messages" or plan.tools is not None:
        raise InputError(f"{out}: an .h5 input holds text or token ids, and no messages or tools: write .jsonl")
    count = 0
    with h5py.File(path, "w") as file:
        group = file.create_group("prompts")
        text = h5py.string_dtype()
        compressed = {"compression": "gzip", "compression_opts": 1, "shuffle": True}
        ids = prompts = None
        if plan.id is not None:
            of = rows.schema.field(plan.id).type
            integers = pa.types.is_integer(of)
            ids = _Growing(group, "id", of.to_pandas_dtype() if integers else text, 65536 if integers else 4096)
        sampling = _Growing(group, "sampling", text, 4096) if plan.sampling else None
        if plan.kind == "prompt":
            prompts = _Growing(group, "text", text, 4096)
        else:
            tokens = _Growing(group, "tokens", "int32", 1 << 18, **compressed)
            offsets = _Growing(group, "offsets", "uint64", 65536, **compressed)
            offsets.append(np.zeros(1, np.uint64))
            total = 0
        for batch in rows.batches():
            for name, why in ((plan.id, "an id is null"), (plan.column, "the prompt is null")):
                if name is not None and batch.column(name).null_count:
                    plan.refuse(count + _first(batch.column(name).is_null()), name, why)
            if ids is not None:
                column = batch.column(plan.id)
                ids.append(column.to_numpy(zero_copy_only=False) if integers else column.to_pylist())
            if sampling is not None:
                sampling.append(_sampling_texts(plan, count, batch))
            if prompts is not None:
                texts = batch.column(plan.column).to_pylist()
                for i, value in enumerate(texts):
                    if "\0" in value:  # HDF5's strings end there
                        plan.refuse(count + i, plan.column, "a NUL character, which an .h5 string cannot hold: write .jsonl")
                prompts.append(texts)
            else:
                lists = batch.column(plan.column)
                flat = lists.flatten()
                if flat.null_count:
                    plan.refuse(count, plan.column, "a token id is null (in this row or one of the next)")
                values = flat.to_numpy(zero_copy_only=False)
                if len(values) and (values.min() < 0 or values.max() >= 2**31):
                    plan.refuse(count, plan.column, "a token id is outside of [0, 2³¹) (in this row or one of the next)")
                tokens.append(values.astype(np.int32))
                ends = total + np.cumsum(np.asarray([len(v) for v in lists], np.uint64), dtype=np.uint64)
                offsets.append(ends)
                total = int(ends[-1]) if len(ends) else total
            count += batch.num_rows
    return count


def _first(mask):
    return mask.to_pylist().index(True)


def parse_sampling(items):
    """['max_tokens', 'temperature=t'] → {'max_tokens': 'max_tokens', 'temperature': 't'}"""
    out = {}
    for item in items:
        key, _, column = item.partition("=")
        if not key or key in out:
            raise InputError(f"--sampling {item}: give NAME or NAME=COLUMN, each name once")
        out[key] = column or key
    return out
