"""The one way of text to a terminal: what others named or said moves no cursor, hides nothing and sets no title."""

from __future__ import annotations

import codecs
import contextlib
import re
import sys
from typing import TYPE_CHECKING, Any

from cfs_core.system.foreign_text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TextIO

# What click and structlog colour with: bright, dim, underlined, foreground colours, and their end. Not 7 and 8, which
# hide, nor backgrounds.
_STYLE = re.compile(r"(\x1b\[(?:(?:[0-24]|22|3[0-79]|9[0-7])(?:;|(?=m)))*m)")


class TerminalText:
    """A text stream to a terminal, in place of *stream*: everything but newlines, tabs and colours is escaped."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the stream has
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write *text*; returns its length."""
        self._stream.write("".join(_safe(part) for part in _STYLE.split(text)))
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        """Write all of *lines*."""
        for line in lines:
            self.write(line)

    @property
    def buffer(self) -> TerminalBytes:
        """A stream for bytes, escaped as text is."""
        return TerminalBytes(self)

    @property
    def raw_text(self) -> TextIO:
        """The stream itself, for what draws: progress bars."""
        return self._stream


class TerminalBytes:
    """Bytes for a terminal, shown as text."""

    def __init__(self, text: TerminalText) -> None:
        self._text = text
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")

    def write(self, data: bytes) -> int:
        """Write *data*; a character may come in two pieces. Returns its length."""
        self._text.write(self._decoder.decode(data))
        return len(data)

    def flush(self) -> None:
        """Write what is buffered."""
        self._text.write(self._decoder.decode(b"", final=True))
        self._text.flush()


@contextlib.contextmanager
def safe_terminals() -> Iterator[None]:
    """Let standard output and standard error, where they are terminals, pass `TerminalText` while the block runs.

    Whoever prints goes through it: cfs, its plugins' commands, libraries. Files and pipes get exactly what is written.
    """
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (_guarded(stream) for stream in before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def exact(text: str, encoding: str) -> bytes:
    """Return the bytes of *text* for a file or a pipe; names that are no valid text are the bytes they were."""
    try:
        return text.encode(encoding, "surrogateescape")
    except UnicodeEncodeError:
        return text.encode(encoding, "backslashreplace")


def _guarded(stream: Any) -> Any:  # noqa: ANN401 - what sys.stdout is, closed or not
    try:
        return TerminalText(stream) if stream is not None and stream.isatty() else stream
    except ValueError:  # closed
        return stream


def _safe(part: str) -> str:
    return part if _STYLE.fullmatch(part) else printable(part)
