"""What training writes down, rendered from its history: CSV files and TensorBoard events. A resumed run's files are those of
a run that was never stopped."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tensorboardX.proto import event_pb2, summary_pb2
from tensorboardX.record_writer import RecordWriter

from hwgen.output import whole_file

EVENTS = "events.out.tfevents.bitsmith"


def write_logs(folder: Path, history: Sequence[Mapping[str, Any]], strengths: Sequence[Mapping[str, Any]]) -> None:
    """Write ``curves.csv`` (a line per epoch; the same for the same run), ``strengths.csv`` (a line per epoch, operand and candidate) and ``tensorboard/``.

    Args:
        history: per epoch its stage, number and figures. strengths: per search epoch the probabilities by operand and bits.
    """
    names = [name for name in dict.fromkeys(name for row in history for name in row) if name != "seconds"]
    _write(folder / "curves.csv", _csv(names, [[row.get(name, "") for name in names] for row in history]))
    rows = [
        [row["epoch"], name, bits, f"{value:.6f}"]
        for row in strengths
        for name, p in row.items()
        if name != "epoch"
        for bits, value in p.items()
    ]
    head = ["epoch", "operand", "bits", "probability"]
    _write(folder / "strengths.csv", _csv(head, rows))
    _events(folder / "tensorboard", history, strengths)


def _csv(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> bytes:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    return stream.getvalue().encode()


def _write(path: Path, data: bytes) -> None:
    with whole_file(path) as part:
        part.write_bytes(data)


def _events(folder: Path, history: Sequence[Mapping[str, Any]], strengths: Sequence[Mapping[str, Any]]) -> None:
    """One event per epoch; its time is the seconds trained so far, its step the epochs of all stages."""
    folder.mkdir(exist_ok=True)
    by_epoch = {row["epoch"]: row for row in strengths}
    seconds = 0.0
    with whole_file(folder / EVENTS) as part:
        writer = RecordWriter(str(part))
        writer.write(event_pb2.Event(wall_time=0.0, file_version="brain.Event:2").SerializeToString())
        for step, row in enumerate(history, 1):
            seconds += float(row.get("seconds", 0.0))
            scalars = {f"{row['stage']}/{k}": v for k, v in row.items() if k not in ("stage", "epoch", "seconds")}
            if row["stage"] == "search":
                found = by_epoch.get(row["epoch"], {})
                scalars |= {
                    f"strengths/{name}/{bits}": value
                    for name, p in found.items()
                    if name != "epoch"
                    for bits, value in p.items()
                }
            values = [summary_pb2.Summary.Value(tag=tag, simple_value=float(value)) for tag, value in scalars.items()]
            event = event_pb2.Event(wall_time=seconds, step=step, summary=summary_pb2.Summary(value=values))
            writer.write(event.SerializeToString())
        writer.close()
