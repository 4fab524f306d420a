from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.errors import BadInputError
from registry.models import model_parameters


@pytest.mark.parametrize(
    ("name", "variable"),
    [
        ("epochs", "EPOCHS"),
        ("modelName", "MODEL_NAME"),
        ("ModelName", "MODEL_NAME"),
        ("model-name", "MODEL_NAME"),
        ("model.name", "MODEL_NAME"),
        ("model_name", "MODEL_NAME"),
        ("model name", "MODEL_NAME"),
        ("MODEL_NAME", "MODEL_NAME"),
        ("model__name", "MODEL_NAME"),
        ("_model_", "MODEL"),
        ("HTTPPort", "HTTP_PORT"),
        ("HTTPPort2", "HTTP_PORT2"),
        ("httpPORT", "HTTP_PORT"),
        ("v2Model", "V2_MODEL"),
        ("max-model-len", "MAX_MODEL_LEN"),
        ("aB", "A_B"),
        ("AB", "AB"),
        ("ABc", "A_BC"),
        ("x1y2", "X1Y2"),
        ("S3Bucket", "S3_BUCKET"),
        ("S3BUCKET_", "S3BUCKET_"),
    ],
)
def test_names_of_variables(name: str, variable: str) -> None:
    assert model_parameters.variable(name) == variable


@given(st.from_regex(r"[A-Za-z_][A-Za-z0-9_.-]{0,30}", fullmatch=True))
def test_a_variable_s_name_is_one_for_every_shell_and_for_itself(name: str) -> None:
    made = model_parameters.variable(name)

    assert made == "" or set(made) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")
    if not made[:1].isdigit():  # which is refused
        assert model_parameters.variable(made) == made


def test_what_serving_passes_on() -> None:
    given = {"modelName": "a b", "max-len": 10, "rate": 0.5, "fast": True, "hf_token": "secret:hf"}

    checked = model_parameters.check(given)

    assert checked == given
    assert model_parameters.arguments(checked) == [
        "--modelName", "a b", "--max-len", "10", "--rate", "0.5", "--fast", "true",
        "--hf_token", "secret:hf",
    ]  # fmt: skip
    assert model_parameters.environment(checked) == {
        "MODEL_NAME": "a b", "MAX_LEN": "10", "RATE": "0.5", "FAST": "true",
        "HF_TOKEN": "secret:hf",
    }  # fmt: skip


def _code(parameters: dict[str, Any]) -> str:
    with pytest.raises(BadInputError) as raised:
        model_parameters.check(parameters)
    assert raised.value.hint
    return raised.value.code


@pytest.mark.parametrize("name", ["", "-a", "1a", "a b", "a=b", "é", ".a", "_", "a" * 251, "a\0"])
def test_names_that_are_no_arguments(name: str) -> None:
    assert _code({name: 1}) == "ParameterNameInvalid"


@pytest.mark.parametrize(
    "name", ["path", "PATH", "ld-preload", "LD_LIBRARY.PATH", "home", "_1", "_0a"]
)
def test_names_that_would_break_a_process(name: str) -> None:
    assert _code({name: "x"}) == "ParameterNameReserved"


@pytest.mark.parametrize(
    ("one", "other"), [("modelName", "model_name"), ("a.b", "a-b"), ("A", "a")]
)
def test_two_names_of_one_variable(one: str, other: str) -> None:
    with pytest.raises(BadInputError) as raised:
        model_parameters.check({one: 1, other: 2})

    assert raised.value.code == "ParameterNameTwice"
    assert repr(one) in raised.value.message
    assert repr(other) in raised.value.message


@pytest.mark.parametrize(
    "value", [None, [1], {"a": 1}, float("nan"), float("inf"), "a\0", "x" * 4001, b"x"]
)
def test_values_that_cannot_be_passed(value: Any) -> None:
    assert _code({"a": value}) == "ParameterValueInvalid"


@pytest.mark.parametrize("value", ["", 0, -1.5, False, "x" * 4000, "ünïcode\nlines"])
def test_values_that_can(value: Any) -> None:
    assert model_parameters.check({"a": value}) == {"a": value}


def test_how_many_and_how_long() -> None:
    assert len(model_parameters.check({f"p{n}": n for n in range(100)})) == 100
    assert _code({f"p{n}": n for n in range(101)}) == "ParametersTooMany"
    assert _code({f"p{n}": "x" * 4000 for n in range(25)}) == "ParametersTooLong"
    assert model_parameters.check({"a" * 250: 1})


@pytest.mark.parametrize(
    "name",
    [
        "token", "hf_token", "hfToken", "HUGGING_FACE_HUB_TOKEN", "api_key", "apiKey", "api-key",
        "apikey", "password", "db.password", "client_secret", "secretValue", "accessKey",
        "private_key", "credentials", "auth_token", "hftoken", "HF_TOKEN2", "password2", "pwd",
        "bearer", "tokens", "access_tokens", "authorization", "passphrase1",
    ],
)  # fmt: skip
@pytest.mark.parametrize("value", ["canary-5311", 53110])
def test_secrets_in_plain_text_are_refused_without_telling_them(name: str, value: Any) -> None:
    with pytest.raises(BadInputError) as raised:
        model_parameters.check({name: value})

    assert raised.value.code == "SecretInPlainText"
    assert f"{name}=secret:NAME" in raised.value.hint
    assert "5311" not in json.dumps(raised.value.as_dict())


@pytest.mark.parametrize(
    "name",
    [
        "max_tokens", "maxNewTokens", "tokenizer", "pad_token", "eosToken", "pad_token_id", "key",
        "key_column", "sort_key", "token_limit", "padtoken", "num_tokens2", "author",
    ],
)  # fmt: skip
def test_what_only_sounds_alike_is_no_secret(name: str) -> None:
    assert model_parameters.check({name: "x"}) == {name: "x"}


@pytest.mark.parametrize(
    "value",
    [
        "hf_" + "aB3dE" * 7, "sk-" + "proj-" + "aB3_" * 8, "AKIA" + "ABCD2345" * 2,
        "Bearer hf_" + "aB3dE" * 7, "--token=ghp_" + "aB3d" * 9,
    ],
)  # fmt: skip
def test_a_value_that_looks_like_a_secret_is_refused_whatever_its_name(value: str) -> None:
    with pytest.raises(BadInputError) as raised:
        model_parameters.check({"note": value})

    assert raised.value.code == "SecretInPlainText"
    assert value not in json.dumps(raised.value.as_dict())


@pytest.mark.parametrize(
    "value", ["hf_transfer", "hf-internal-testing/tiny-random-bert", "sk-learn-random-forests"]
)
def test_a_value_that_only_looks_alike_is_taken(value: str) -> None:
    assert model_parameters.check({"note": value}) == {"note": value}


def test_whether_a_token_is_used_is_no_secret() -> None:
    assert model_parameters.check({"use_auth_token": True})


@pytest.mark.parametrize("value", ["secret:", "secret: ", "secret:Not A Name", "secret:a/b"])
def test_a_secret_whose_name_cannot_be_one(value: str) -> None:
    assert _code({"token": value}) == "SecretNameWrong"
    assert _code({"anything": value}) == "SecretNameWrong"
