"""The answers as columns beside the table that the prompts came from."""
import pyarrow as pa

from moerun_io.answers import Answers
from moerun_io.errors import InputError
from moerun_io.tables import Table, replacing, table_writer

DEFAULT = ("answer_index", "text", "finish_reason", "prompt_length", "prompt_truncated", "error", "token_ids", "logprobs", "top_tokens", "top_logprobs", "prompt_logprobs",
           "prompt_top_tokens", "prompt_top_logprobs", "prompt_is_greedy", "prompt_routed_experts", "routed_experts")


def join(table, answers, out, *, columns=None, prefix="", id=None, overwrite=False):
    """Writes `out` with the columns of `table` and those of the answers, row by row (a row of `table` once for each of its
    answers); returns the number of rows of `table`. `id` names a column of the table that must equal the answers' ids. Throws
    InputError; nothing is left under the name then."""
    with Table(table) as rows, Answers(answers) as given:
        names = list(columns) if columns is not None else [name for name in DEFAULT if name in given.names]
        if id is not None:
            rows.need(id, "the ids")
        given.select(names + ["id"] if id is not None and "id" not in names else names)
        fields = [pa.field(prefix + name, given.schema.field(name).type) for name in names]
        for field in fields:
            if field.name in rows.schema.names:
                raise InputError(f"{table} has a column {field.name!r} already; give --prefix, as in --prefix answer_")
        schema = pa.schema([*rows.schema, *fields])
        count = 0
        with replacing(out, overwrite) as partial:
            with table_writer(partial, schema) as writer:
                for batch in rows.batches():
                    end = count + batch.num_rows
                    if end > given.num_rows:
                        raise InputError(f"{table} has more rows than {answers}, which has {given.num_rows}: they are not of one job")
                    answered = given.rows(count, end)
                    places = given.places(count, end)
                    if places is not None:
                        batch = batch.take(pa.array(places))
                    if id is not None:
                        _same_ids(table, answers, id, count, batch, answered)
                    arrays = [*batch.columns, *(answered.column(name) for name in names)]
                    writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=schema))
                    count = end
            if count != given.num_rows:
                raise InputError(f"{table} has {count} rows and {answers} has {given.num_rows}: they are not of one job")
        return count


def _same_ids(table, answers, id, first, batch, answered):
    ours, theirs = (column.to_pylist() for column in (batch.column(id), answered.column("id")))
    for i, (mine, other) in enumerate(zip(ours, theirs)):
        if str(mine) != str(other):
            raise InputError(f"row {first + i}: {table} has the id {mine!r} and {answers} {other!r}: they are not of one job")
