"""``docs/storage.md`` names the settings and the errors that there are."""

from __future__ import annotations

import re
from pathlib import Path

from infra.settings import Settings

_ROOT = Path(__file__).resolve().parents[3]
_PAGE = (_ROOT / "docs/storage.md").read_text()
_CODE = "".join(
    path.read_text()
    for path in (*(_ROOT / "infra/storage").glob("*.py"), _ROOT / "infra/secrets.py",
                 _ROOT / "infra/errors.py", _ROOT / "registry/storage_accesses.py",
                 _ROOT / "registry/deletion.py")
)  # fmt: skip


def test_every_setting_of_storage_is_told_with_its_default() -> None:
    of_the_command = {"STORAGE_SECRET", "STORAGE_TOKEN"}
    told = set(re.findall(r"`MODELYARD_(\w+)`", _PAGE)) - of_the_command
    known = {
        name.upper()
        for name in Settings.model_fields
        if name.startswith(("s3_", "obs_", "nas", "transfer_"))
    }
    defaults = dict(re.findall(r"`MODELYARD_(\w+)` \((\d+)\)", _PAGE))

    assert told == known
    assert {name: int(value) for name, value in defaults.items()} == {
        name.upper(): field.default
        for name, field in Settings.model_fields.items()
        if name.startswith("transfer_")
    }


def test_every_error_that_is_told_exists() -> None:
    table = _PAGE.partition("## Errors")[2]
    told = set(re.findall(r"`([A-Z]\w+)`", table)) - set(re.findall(r"`(MODELYARD_\w+)`", table))

    assert len(told) > 20
    assert {code for code in told if f'"{code}"' not in _CODE} == set()
