"""The local stack: a supervisor and the parts that it supervises."""
