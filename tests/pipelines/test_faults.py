from pipelines.faults import FaultCollector, PipelineFault, PipelineInvalidError, known, shortened


def test_what_looks_like_what_was_wanted_is_named() -> None:
    assert known(["train", "evaluate"], "trian") == "There is: train."
    assert known(["b", "a"], "zzz") == "There is: a, b."
    assert known("abcde", "zzz") == "There is: a, b, c, …."
    assert known([], "x", "It has none.") == "It has none."


def test_values_are_shortened() -> None:
    assert shortened("x") == "'x'"
    assert len(shortened("x" * 10_000)) < 400


def test_nothing_is_refused_without_a_fault() -> None:
    FaultCollector().raise_any("It")


def test_a_fault_without_a_place_or_a_remedy() -> None:
    assert str(PipelineFault("", "It is wrong.")) == "It is wrong."
    assert "a fault" in PipelineInvalidError("It", [PipelineFault("a", "b")]).message
