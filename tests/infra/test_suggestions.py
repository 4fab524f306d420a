from infra.suggestions import did_you_mean, suggest_names


def test_what_looks_like_what_was_wanted_is_named() -> None:
    assert suggest_names(["train", "evaluate"], "trian") == "There is: train."
    assert suggest_names(["b", "a"], "zzz") == "There is: a, b."
    assert suggest_names("abcdef", "zzz") == "There is: a, b, c, d, e, …."
    assert suggest_names([], "x", "It has none.") == "It has none."


def test_only_a_similar_name_can_be_meant() -> None:
    assert did_you_mean("trian", ["tune", "train"]) == "Did you mean train?"
    assert did_you_mean("zzz", ["tune", "train"]) == ""
