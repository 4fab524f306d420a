"""Fails, loudly."""

import sys

print("about to fail")
sys.exit("the data is wrong")
