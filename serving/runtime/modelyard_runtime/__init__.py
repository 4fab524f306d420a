"""Modelyard's inference runtime: loads a model and predicts with it, in the model's environment.

It needs numpy beside what the model needs, its server orjson and uvicorn, and gRPC hpack and
protobuf. It imports nothing of Modelyard's other packages.
"""

__version__ = "0.1.0"
