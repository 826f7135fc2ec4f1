"""The answers of a perceptual study in one SQLite file: an answer that was confirmed survives whatever happens next.

Each answer is one transaction, on disk before it is confirmed, and can be given once; many participants write at the
same time through connections of their own.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from motionsynth.errors import InputError
from motionsynth.perception import Answer, Trial

SCHEMA_VERSION = 1
BUSY_SECONDS = 30.0
SCHEMA = """
CREATE TABLE IF NOT EXISTS study (version INTEGER NOT NULL, request TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS participants (
    code TEXT PRIMARY KEY, number INTEGER NOT NULL UNIQUE, consent TEXT NOT NULL, joined REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS answers (
    participant TEXT NOT NULL REFERENCES participants (code), trial INTEGER NOT NULL, task TEXT NOT NULL,
    sample_id TEXT NOT NULL, source TEXT NOT NULL, label INTEGER NOT NULL, options TEXT NOT NULL, answer TEXT NOT NULL,
    correct INTEGER NOT NULL, milliseconds INTEGER NOT NULL, answered REAL NOT NULL, PRIMARY KEY (participant, trial)
) WITHOUT ROWID;
"""


class AnsweredError(RuntimeError):
    """The trial has another answer already, or is not the next one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Participant:
    """Somebody who takes part: number from 0 in the order of joining, and trials answered so far."""

    code: str
    number: int
    answered: int


class AnswerStore:
    """The file of one study.

    Args:
        path: Made if it is not there.
        request: All that decides the trials (clips, design), as JSON; another study's file is refused.

    Raises:
        InputError: the file is another study's, no such file at all, or cannot be written.
    """

    def __init__(self, path: Path, request: Mapping[str, Any]) -> None:
        self.path = path
        told = json.dumps(request, sort_keys=True)
        try:
            with self._open() as db:
                db.executescript(SCHEMA)
                db.execute("BEGIN IMMEDIATE")
                row = db.execute("SELECT version, request FROM study").fetchone()
                if row is None:
                    db.execute("INSERT INTO study VALUES (?, ?)", (SCHEMA_VERSION, told))
                    row = (SCHEMA_VERSION, told)
        except sqlite3.DatabaseError as e:
            raise InputError(
                f"The file of answers '{path}' cannot be used ({e}); name another one with --answers."
            ) from None
        if row != (SCHEMA_VERSION, told):
            raise InputError(
                f"The file '{path}' holds the answers of another study (other clips, or another design); go on with "
                "its own options, or name another file with --answers."
            )

    def join(self, code: str, consent: str) -> Participant:
        """Register a participant, or find them again; their number is the next free one.

        Args:
            code: What they chose to be known by.
            consent: The text that they agreed to; its hash is kept.
        """
        with self._open() as db:
            db.execute("BEGIN IMMEDIATE")
            if db.execute("SELECT 1 FROM participants WHERE code = ?", (code,)).fetchone() is None:
                number = db.execute("SELECT count(*) FROM participants").fetchone()[0]
                agreed = hashlib.sha256(consent.encode()).hexdigest()
                db.execute(
                    "INSERT INTO participants VALUES (?, ?, ?, ?)", (code, number, agreed, time.time())
                )
            return self._participant(db, code)

    def participant(self, code: str) -> Participant | None:
        """Who joined under a code, None for nobody."""
        with self._open() as db:
            known = db.execute("SELECT 1 FROM participants WHERE code = ?", (code,)).fetchone()
            return self._participant(db, code) if known else None

    def answer(self, code: str, trial: Trial, answer: str, milliseconds: int) -> None:
        """Keep an answer; the same one given again is no mistake (its confirmation was lost on the way).

        Raises:
            AnsweredError: the trial was answered otherwise, or is not the next one.
        """
        with self._open() as db:
            db.execute("BEGIN IMMEDIATE")
            at = (code, trial.number)
            had = db.execute("SELECT answer FROM answers WHERE participant = ? AND trial = ?", at).fetchone()
            if had is not None:
                if had[0] != answer:
                    raise AnsweredError(f"clip {trial.number + 1} has its answer already")
                return
            if trial.number != self._participant(db, code).answered:
                raise AnsweredError(f"clip {trial.number + 1} is not the next one")
            db.execute(
                "INSERT INTO answers VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *at, trial.task, trial.sample_id, trial.source, trial.label, json.dumps(trial.options), answer,
                    answer == trial.truth, milliseconds, time.time(),
                ),
            )  # fmt: skip

    def rows(self) -> list[dict[str, Any]]:
        """All answers, by participant and trial; `participant` is a number, so that no code leaves the file."""
        with self._open() as db:
            cursor = db.execute(
                "SELECT p.number AS participant, a.trial, a.task, a.sample_id, a.source, a.label, a.options, a.answer, "
                "a.correct, a.milliseconds, a.answered FROM answers a JOIN participants p ON p.code = a.participant "
                "ORDER BY p.number, a.trial"
            )
            names = [c[0] for c in cursor.description]
            rows = [dict(zip(names, row, strict=True)) for row in cursor]
        return [{**r, "options": json.loads(r["options"]), "correct": bool(r["correct"])} for r in rows]

    @staticmethod
    def _participant(db: sqlite3.Connection, code: str) -> Participant:
        number = db.execute("SELECT number FROM participants WHERE code = ?", (code,)).fetchone()[0]
        count = db.execute("SELECT count(*) FROM answers WHERE participant = ?", (code,)).fetchone()[0]
        return Participant(code=code, number=number, answered=count)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """One connection and one transaction: committed at the end, rolled back on an exception."""
        db = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None)
        try:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")  # a confirmed answer is on disk
            db.execute("PRAGMA foreign_keys = ON")
            yield db
            if db.in_transaction:
                db.execute("COMMIT")
        finally:
            db.close()  # rolls back what was not committed


def answers_of(rows: Sequence[Mapping[str, Any]]) -> list[Answer]:
    """Rows as `motionsynth.perception` counts them."""
    fields = [f for f in Answer.__dataclass_fields__ if f != "participant"]
    return [Answer(participant=str(r["participant"]), **{f: r[f] for f in fields}) for r in rows]
