"""Errors of a user's code: where they happened, without what called it."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from types import TracebackType

_LONGEST = 2000  # characters


class CodeErrors:
    """Describes the errors of the code in a folder."""

    def __init__(self, folder: Path) -> None:
        """Describe those of ``folder``, and of the modules in it."""
        self._folders = (folder.resolve(), folder.absolute())

    def describe(self, error: BaseException, default: str = "") -> str:
        """The place, type and message, such as ``score.py:14, in run: KeyError: 'data'``.

        Args:
            error: The error.
            default: The place of an error that none of the code's lines raised; "" for none.
        """
        place = self._place(error) or default
        text = "".join(traceback.format_exception_only(error)[-1:]).strip()
        return (f"{place}: {text}" if place else text)[:_LONGEST]

    def log(self, error: BaseException) -> None:
        """Write the lines of the code that led to an error to standard error."""
        if self._place(error):
            own = self._traceback(error)
            lines = traceback.format_exception(type(error), error, own)
            print("".join(lines), file=sys.stderr, end="", flush=True)

    def _place(self, error: BaseException) -> str:
        """The innermost line of the code; "" if it is none of its lines."""
        if isinstance(error, SyntaxError) and error.filename and self._is_own(error.filename):
            return f"{self._relative(error.filename)}:{error.lineno}"
        frames = traceback.extract_tb(error.__traceback__)
        own = [one for one in frames if self._is_own(one.filename)]
        return (
            f"{self._relative(own[-1].filename)}:{own[-1].lineno}, in {own[-1].name}"
            if own
            else ""
        )

    def _traceback(self, error: BaseException) -> TracebackType | None:
        """The traceback from the first line of the code on."""
        found = error.__traceback__
        while found and not self._is_own(found.tb_frame.f_code.co_filename):
            found = found.tb_next
        return found

    def _is_own(self, file: str) -> bool:
        path = Path(file)
        return any(map(path.is_relative_to, self._folders)) and "site-packages" not in path.parts

    def _relative(self, file: str) -> str:
        path = Path(file)
        return next(
            str(path.relative_to(one)) for one in self._folders if path.is_relative_to(one)
        )
