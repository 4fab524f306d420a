"""When things run by themselves: triggers, their slots, and what becomes of missed ones."""
