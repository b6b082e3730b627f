"""A file of JSON lines that grows, and of which a kill at any time leaves whole lines."""

from __future__ import annotations

import json
import os
from contextlib import contextmanager

try:
    import fcntl
except ImportError:  # of POSIX
    fcntl = None

__all__ = ["Journal", "journal"]


@contextmanager
def journal(path, kind):
    """A `Journal` in this file, which is made if it is not there; in no file if `path` is None."""
    if path is None:
        yield Journal(None, None, kind)
        return
    was_there = os.path.exists(path)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    with os.fdopen(handle, "r+b") as file:
        made = Journal(path, file, kind)
        try:
            yield made
        finally:
            if made.head is None and not was_there:  # an error before there was anything to keep
                os.unlink(path)


class Journal:
    """Lines of JSON under a head that says what they are.

    Attributes
    ----------
    head : dict or None
        First line; None if there is none yet.
    lines : list of dict
        The others, as they were when the file was opened.

    Raises
    ------
    ValueError
        If the file is of another kind or damaged, or is being written by another process.
    """

    def __init__(self, path, file, kind):
        self.path, self.file, self.kind = path, file, kind
        self.head, self.lines = None, []
        if file is not None:
            self._lock()
            self._read()

    def _lock(self):
        if fcntl is None:
            return
        try:
            # a lock of the process: children that outlive it do not hold it
            fcntl.lockf(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ValueError(f"{self.path} is being written by another process.") from error

    def _read(self):
        content, start = self.file.read(), b'{"kind": ' + json.dumps(self.kind).encode()
        if content[: len(start)] != start[: len(content)]:
            raise ValueError(f"{self.path} is no file of a {self.kind}.")
        whole = content.rfind(b"\n") + 1  # what follows was being written when it was killed
        try:
            found = [json.loads(line) for line in content[:whole].splitlines()]
            self.head, *self.lines = map(dict, found) if found else (None,)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{self.path} is damaged: {error}") from error
        self.end = whole

    def begin(self, head):
        """Write the head; or compare it with the one that is there, and raise ValueError."""
        head = {"kind": self.kind} | json.loads(json.dumps(head))
        if self.head is None:
            self.head = head
            self._write([head])
        elif self.head != head:
            other = sorted(
                x for x in head.keys() | self.head.keys() if head.get(x) != self.head.get(x)
            )
            raise ValueError(
                f"{self.path} is of a {self.kind} that differs in {', '.join(other)}. Go on with "
                "the same one, remove the file, or take another."
            )

    def append(self, lines):
        """Write lines, which are on disk when this returns."""
        self._write(lines)

    def _write(self, lines):
        if self.file is None or not lines:
            return
        self.file.seek(self.end)
        self.file.truncate()
        self.file.write("".join(json.dumps(line) + "\n" for line in lines).encode())
        self.file.flush()
        os.fsync(self.file.fileno())
        self.end = self.file.tell()
