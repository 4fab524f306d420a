"""Tests that drive the real stack, as a person does."""
