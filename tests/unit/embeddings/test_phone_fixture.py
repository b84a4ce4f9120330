"""The readers on phones and in browsers are tested with tables that today's writer writes."""

from __future__ import annotations

from pathlib import Path

from tests.unit.embeddings.phone_fixture import HOME, write


def test_the_apps_tables_are_what_the_writer_writes(tmp_path: Path) -> None:
    write(tmp_path)
    kept = {path.name: path.read_bytes() for path in HOME.iterdir()}
    assert kept == {path.name: path.read_bytes() for path in tmp_path.iterdir()}
