"""Errors that a user can act on."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

LONGEST_VALUE = 200  # characters of a value in a message


class UserError(Exception):
    """Wrong input. The message says what was found, what was expected, and what to do.

    The command line prints the message alone and exits with code 2.
    """


@contextmanager
def errors_about(subject: object) -> Iterator[None]:
    """Put the name of what was looked at, as a file, before the message of a UserError."""
    try:
        yield
    except UserError as error:
        text = str(error)
        if not text.startswith(str(subject)):
            text = f"{subject}: {text}"
        raise UserError(text) from None


def unknown_name_message(kind: str, name: str, known: Iterable[str]) -> str:
    """Message for a name that is not among `known`, which it lists, nearest spellings first."""
    names = list(dict.fromkeys(known))
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    return f"Unknown {kind} {shown(name)}.{hint} Known: {', '.join(names) or 'none'}."


def shown(value: object) -> str:
    """A value as a message shows it: what a file holds is not poured over the terminal."""
    text = repr(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}…"


def refuse_unknown_elements(numbers: Iterable[int], known: Sequence[int]) -> None:
    """Raise UserError for atomic numbers that a model of the `known` ones has no input for."""
    unknown = sorted(set(numbers) - set(known))
    if unknown:
        raise UserError(
            f"Atomic numbers {unknown} are outside the species of the model, {list(known)} (0 is "
            "padding). Remove these structures, or train with them in 'species'."
        )


def comes_from(error: BaseException, package: str) -> bool:
    """Whether another package raised an error, or what it called: then an input is to blame.

    Of its frames and of those of this package, the last decides: an error of our own, as in a
    function that the other package calls, is a bug. A UserError has said already what is wrong.
    """
    if isinstance(error, UserError):
        return False
    last, trace = "", error.__traceback__
    while trace is not None:
        room = str(trace.tb_frame.f_globals.get("__name__")).partition(".")[0]
        last = room if room in (package, __package__) else last
        trace = trace.tb_next
    return last == package


def one_line(error: BaseException) -> str:
    """What another package says in an error, which may be several lines, as a part of a line."""
    return " ".join(str(error).split())


def describe_error(error: BaseException) -> str:
    """An error in one line: a UserError's message alone, others with their type before it."""
    return str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"


def printable(text: str) -> str:
    """A message for a terminal: what files of others put into it can neither fail nor steer it."""
    whole = text.encode("utf-8", errors="backslashreplace").decode("utf-8")
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in whole)


def ignore_import_warnings() -> None:
    """Silence what importing hippynn 0.1.3 makes torch say, which no user can act on."""
    warnings.filterwarnings("ignore", message="Sparse invariant checks")
    warnings.filterwarnings("ignore", message="`torch.jit.*is deprecated")
