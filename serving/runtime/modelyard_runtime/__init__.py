"""Modelyard's inference runtime: loads a model and predicts with it, in the model's environment.

It needs numpy beside what the model needs, and imports nothing of Modelyard's other packages.
"""
