"""An SQL file as its statements.

The server would split a file by itself, but then can't say which of its statements failed or how long
each held its locks. So files are sent statement by statement, split where psql would split them: at a
semicolon outside quotes, comments, parentheses, dollar-quoted bodies and BEGIN ATOMIC … END. Together
the statements are the file, byte for byte. Where the splitter errs the server finds a syntax error
and the file's transaction leaves nothing behind.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_TOKEN = re.compile(
    r"""
      (?P<comment>--[^\n]*)
    | (?P<block>/\*)
    | (?P<escaped>\b[eE]'(?:[^'\\]|\\.|'')*(?:'|\Z))
    | (?P<quoted>'(?:[^']|'')*(?:'|\Z))
    | (?P<name>"(?:[^"]|"")*(?:"|\Z))
    | (?P<dollar>\$(?:[A-Za-z_\x80-\uffff][\w\x80-\uffff]*)?\$)
    | (?P<word>[A-Za-z_\x80-\uffff][\w$\x80-\uffff]*)
    | (?P<mark>[;()])
    | (?P<other>\d[\w$]*|\s+|.)
    """,
    re.X | re.S,
)
_BLOCK_MARK = re.compile(r"/\*|\*/")
_ENDS_TRANSACTION = frozenset({"BEGIN", "START", "COMMIT", "ROLLBACK", "END", "ABORT"})
EXCERPT = 200  # characters


@dataclass(frozen=True, slots=True)
class Statement:
    """`text`: with the blanks and comments before it and its semicolon. `line`: where its first word
    stands, counted from 1. `words`: its first ones in capitals, comments left out, at most four."""

    text: str
    line: int
    words: tuple[str, ...]

    @property
    def excerpt(self) -> str:
        """On one line, without the comments before it, shortened."""
        body = " ".join(self.text[_first_word(self.text) :].split()).rstrip(";").rstrip()
        return body if len(body) <= EXCERPT else body[: EXCERPT - 1] + "…"

    @property
    def ends_transaction(self) -> bool:
        """BEGIN, COMMIT and their like: a file that runs in a transaction must not have them."""
        prepared = self.words[:2] in {("PREPARE", "TRANSACTION"), ("COMMIT", "PREPARED")}
        return prepared or (bool(self.words) and self.words[0] in _ENDS_TRANSACTION)


def statements(text: str) -> list[Statement]:
    """What only is blank or a comment at the end belongs to the last statement."""
    pieces = list(_split(text))
    found: list[Statement] = []
    at = 0
    for piece, words in pieces:
        if words or not found:
            line = text.count("\n", 0, at + _first_word(piece)) + 1
            found.append(Statement(piece, line, words))
        else:
            last = found.pop()
            found.append(Statement(last.text + piece, last.line, last.words))
        at += len(piece)
    return found if any(statement.words for statement in found) else []


def _split(text: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """(text up to and with the semicolon, first words)."""
    start, at, depth, atomic = 0, 0, 0, 0
    words: list[str] = []
    before = ""
    while at < len(text):
        token = _TOKEN.match(text, at)
        assert token is not None  # noqa: S101 - "other" takes any character
        kind, piece = token.lastgroup, token.group()
        at = token.end()
        if kind == "block":
            at = _end_of_comment(text, at)
        elif kind == "dollar":
            end = text.find(piece, at)
            at = len(text) if end < 0 else end + len(piece)
        elif kind == "word":
            word = piece.upper()
            if len(words) < 4:
                words.append(word)
            atomic = _atomic(atomic, before, word, words)
            before = word
        elif piece == "(":
            depth += 1
        elif piece == ")":
            depth = max(0, depth - 1)
        elif piece == ";" and not depth and not atomic:
            yield text[start:at], tuple(words)
            start, words, before = at, [], ""
        elif kind in {"quoted", "escaped", "name"} and not words:
            words.append(piece)
    if start < len(text):
        yield text[start:], tuple(words)


def _atomic(depth: int, before: str, word: str, words: list[str]) -> int:
    """How deep in BEGIN ATOMIC … END, whose CASE has an END as well."""
    if depth:
        return depth + (word == "CASE") - (word == "END")
    makes_routine = words[0] == "CREATE" and bool({"FUNCTION", "PROCEDURE"} & set(words))
    return 1 if makes_routine and (before, word) == ("BEGIN", "ATOMIC") else 0


def _end_of_comment(text: str, at: int) -> int:
    """Comments nest."""
    depth = 1
    while depth:
        mark = _BLOCK_MARK.search(text, at)
        if mark is None:
            return len(text)
        depth += 1 if mark.group() == "/*" else -1
        at = mark.end()
    return at


def _first_word(text: str) -> int:
    """Where the first thing stands that is neither blank nor comment."""
    at = 0
    while at < len(text):
        if text.startswith("--", at):
            end = text.find("\n", at)
            at = len(text) if end < 0 else end
        elif text.startswith("/*", at):
            at = _end_of_comment(text, at + 2)
        elif text[at].isspace():
            at += 1
        else:
            return at
    return len(text)
