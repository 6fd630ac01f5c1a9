"""An exchange as one Parquet file, which pandas and `datasets` open."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any, assert_never

from mutual_env.errors import MissingExtraError
from sharing.exchange.protocol import Exchange
from sharing.records import SCHEMA_VERSION, Record, Rollout, Statistics, Success

_ROWS_A_GROUP = 10_000


def export(exchange: Exchange, path: str | Path) -> int:
    """Write every record, one a row, columns of other kinds null. Returns how many. The file is whole or not
    there.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingExtraError.of("export to Parquet", "data") from error
    schema = pa.schema(
        [
            *((name, pa.string()) for name in ("kind", "task_id", "author", "tokenizer", "verifier")),
            *((name, pa.int64()) for name in ("round", "policy_version", "index", "count")),
            *((name, pa.float64()) for name in ("reward", "reward_sum", "square_sum")),
            ("correct", pa.bool_()),
            ("finish_reason", pa.string()),
            ("text", pa.string()),
            ("token_ids", pa.list_(pa.int32())),
            ("logprobs", pa.list_(pa.float64())),
        ],
        metadata={"mutual_env.schema": str(SCHEMA_VERSION)},
    )
    target, written = Path(path), 0
    aside = target.with_name(target.name + ".partial")
    records = exchange.scan()
    with pq.ParquetWriter(aside, schema) as writer:
        while rows := [_row(r) for r in itertools.islice(records, _ROWS_A_GROUP)]:
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))
            written += len(rows)
    os.replace(aside, target)
    return written


def _row(record: Record) -> dict[str, Any]:
    origin = record.origin
    row: dict[str, Any] = {
        "kind": record.kind,
        "task_id": origin.task_id,
        "author": origin.author,
        "tokenizer": origin.tokenizer,
        "verifier": origin.verifier,
        "round": origin.round,
        "policy_version": origin.policy_version,
        "index": record.index,
    }
    match record:
        case Rollout(completion=completion):
            row |= {"reward": record.reward, "correct": record.correct, "text": completion.text}
            row |= {"finish_reason": completion.finish_reason, "token_ids": completion.token_ids}
            row |= {"logprobs": completion.logprobs}
        case Success():
            row |= {"reward": record.reward, "correct": True, "text": record.text}
            row |= {"finish_reason": record.finish_reason}
        case Statistics():
            row |= {"count": record.count, "reward_sum": record.reward_sum, "square_sum": record.square_sum}
        case _:
            assert_never(record)
    return row
