"""Runs the Python code that is its argument."""

import sys

exec(compile(sys.argv[1], "<snippet>", "exec"), {"__name__": "__main__"})
