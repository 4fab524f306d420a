"""The serving benchmark's own side: the server, and the client of every protocol."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import serving
from benchmarks.serving_load import Load, UnansweredError, run
from benchmarks.serving_servers import OURS, Protocol


@pytest.mark.integration
def test_every_protocol_is_measured_and_a_refusal_is_no_answer(tmp_path: Path) -> None:
    model = serving._make(tmp_path, "linear")
    with serving._serving(OURS, OURS.interpreter(), model) as server:
        found = {
            protocol: serving._ask(server, serving._Case(model.name, protocol, 2), model, 0.1)
            for protocol in Protocol
        }
        for path, port, is_grpc in (
            ("/v2/models/none/infer", server.port, False),
            ("/inference.GRPCInferenceService/None", server.grpc_port, True),
        ):
            with pytest.raises(UnansweredError):
                run(Load(port, path, "", is_grpc))

    assert server.seconds > 0
    for measured in found.values():
        assert measured.load.requests > 2
        assert 0 < measured.load.p50 <= measured.load.p99
