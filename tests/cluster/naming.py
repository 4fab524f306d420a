"""What names, labels and quantities may be."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from tests.cluster.kinds import Kind
from tests.cluster.quantities import quantity
from tests.cluster.refusals import Wrong, invalid

_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_LABEL}(\.{_LABEL})*"
_SERVICE = r"[a-z]([-a-z0-9]*[a-z0-9])?"
_WORD = r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_LABELS_SAID = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and "
    "must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex "
    f"used for validation is '{_LABEL}')"
)
_SUBDOMAIN_SAID = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or "
    "'.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used "
    f"for validation is '{_SUBDOMAIN}')"
)
_SERVICE_SAID = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an "
    "alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', "
    f"regex used for validation is '{_SERVICE}')"
)
_WORD_SAID = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end "
    f"with an alphanumeric character (e.g. 'MyName',  or 'my.name', regex used is '{_WORD}')"
)
_VALUE_SAID = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or "
    "'.', and must start and end with an alphanumeric character (e.g. 'MyValue', regex used for "
    f"validation is '({_WORD})?')"
)
_RULES = {
    "label": (_LABEL, 63, _LABELS_SAID),
    "subdomain": (_SUBDOMAIN, 253, _SUBDOMAIN_SAID),
    "service": (_SERVICE, 63, _SERVICE_SAID),
}
_ANNOTATIONS = 256 * 1024
#: Shorter than the rule of their kind has it.
_LONGEST = {"CronJob": 52}


def wrong_name(rule: str, name: str) -> list[str]:
    """What is wrong with a name of a rule ("label", "subdomain", "service", "path")."""
    if rule == "path":
        if name in (".", ".."):
            return [f"may not be '{name}'"]
        return [f"may not contain '{sign}'" for sign in "/%" if sign in name]
    shape, longest, said = _RULES[rule]
    told = []
    if len(name) > longest:
        told.append(f"must be no more than {longest} characters")
    if not re.fullmatch(shape, name):
        told.append(said)
    return told


def wrong_key(key: str) -> list[str]:
    """What is wrong with the key of a label, an annotation or a resource."""
    prefix, slash, name = key.rpartition("/")
    told = []
    if slash and not prefix:
        told.append("prefix part must be non-empty")
    elif slash:
        told += [f"prefix part {why}" for why in wrong_name("subdomain", prefix)]
    if not name:
        told.append("name part must be non-empty")
    elif len(name) > 63:
        told.append("name part must be no more than 63 characters")
    if not re.fullmatch(_WORD, name):
        told.append(_WORD_SAID)
    return told


def wrong_value(value: str) -> list[str]:
    """What is wrong with a label's value."""
    told = []
    if len(value) > 63:
        told.append("must be no more than 63 characters")
    if value and not re.fullmatch(_WORD, value):
        told.append(_VALUE_SAID)
    return told


def labels(found: Mapping[str, str], at: str) -> Iterator[Wrong]:
    """What is wrong with labels, or with a nodeSelector."""
    for key, value in found.items():
        yield from (invalid(at, key, why) for why in wrong_key(key))
        yield from (invalid(at, value, why) for why in wrong_value(value))


def metadata(row: Kind, meta: Mapping[str, Any]) -> Iterator[Wrong]:
    """What is wrong with an object's metadata."""
    name = meta.get("name", "")
    if not name:
        yield Wrong("metadata.name", "Required value", "name or generateName is required")
    else:
        yield from (invalid("metadata.name", name, why) for why in wrong_name(row.name, name))
        longest = _LONGEST.get(row.kind)
        if longest is not None and len(name) > longest:
            yield invalid("metadata.name", name, f"must be no more than {longest} characters")
    yield from labels(meta.get("labels") or {}, "metadata.labels")
    yield from annotations(meta.get("annotations") or {}, "metadata.annotations")
    for finalizer in meta.get("finalizers") or ():
        yield from (invalid("metadata.finalizers", finalizer, why) for why in wrong_key(finalizer))
    yield from _owners(meta.get("ownerReferences") or ())


def annotations(found: Mapping[str, str], at: str) -> Iterator[Wrong]:
    """What is wrong with annotations."""
    for key in found:
        yield from (invalid(at, key, why) for why in wrong_key(key.lower()))
    if sum(len(key) + len(value) for key, value in found.items()) > _ANNOTATIONS:
        yield Wrong(at, "Too long", f"may not be more than {_ANNOTATIONS} bytes")


def _owners(references: Any) -> Iterator[Wrong]:
    at = "metadata.ownerReferences"
    for index, reference in enumerate(references):
        for key in ("apiVersion", "kind", "name", "uid"):
            if not reference.get(key):
                yield invalid(f"{at}[{index}].{key}", "", f"{key} must not be empty")
    controllers = [one["name"] for one in references if one.get("controller")]
    if len(controllers) > 1:
        yield invalid(
            at,
            controllers[1],
            "Only one reference can have Controller set to true. Found "
            f'"true" in references for {controllers[0]} and {controllers[1]}',
        )


def amount(value: object, at: str) -> Iterator[Wrong]:
    """What is wrong with a quantity."""
    try:
        number = quantity(str(value))
    except ValueError:
        yield invalid(
            at,
            value,
            "quantities must match the regular expression "
            "'^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        )
        return
    if number < 0:
        yield invalid(at, value, "must be greater than or equal to 0")
