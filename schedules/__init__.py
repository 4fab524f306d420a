"""Schedules: triggers, their slots, and the catch-up of missed slots."""
