from pipelines.faults import (
    FaultCollector,
    PipelineFault,
    PipelineInvalidError,
    shorten,
)


def test_values_are_shortened() -> None:
    assert shorten("x") == "'x'"
    assert len(shorten("x" * 10_000)) < 400


def test_nothing_is_refused_without_a_fault() -> None:
    FaultCollector().raise_any("It")


def test_a_fault_without_a_place_or_a_remedy() -> None:
    assert str(PipelineFault("", "It is wrong.")) == "It is wrong."
    assert "a fault" in PipelineInvalidError("It", [PipelineFault("a", "b")]).message
