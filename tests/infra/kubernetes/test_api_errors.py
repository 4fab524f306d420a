"""Sentences that API servers say, and what they mean."""

from __future__ import annotations

import json
from typing import Any

import pytest

from infra.kubernetes.api_errors import ApiOperation, ClusterError, from_response

_CREATE = ApiOperation("create", "jobs", "my-run", "training")


def _refusal(
    status: int, reason: str, message: str, asked: ApiOperation = _CREATE, **details: Any
) -> ClusterError:
    body = {
        "kind": "Status",
        "status": "Failure",
        "message": message,
        "reason": reason,
        "details": details,
    }
    return from_response(asked, status, json.dumps(body).encode())


@pytest.mark.parametrize(
    ("status", "reason", "message", "code"),
    [
        (401, "Unauthorized", "Unauthorized", "Unauthorized"),
        (
            403,
            "Forbidden",
            'jobs.batch is forbidden: User "system:anonymous" cannot create resource "jobs" in '
            'API group "batch" in the namespace "training"',
            "Unauthorized",
        ),
        (
            403,
            "Forbidden",
            'jobs.batch is forbidden: User "ann" cannot create resource "jobs" in API group '
            '"batch" in the namespace "training"',
            "Forbidden",
        ),
        (403, "Forbidden", 'forbidden: User "ann" cannot get path "/version"', "Forbidden"),
        (403, "", "", "Forbidden"),
        (
            403,
            "Forbidden",
            'pods "x" is forbidden: exceeded quota: gpus, requested: requests.nvidia.com/gpu=8, '
            "used: requests.nvidia.com/gpu=4, limited: requests.nvidia.com/gpu=8",
            "QuotaExceeded",
        ),
        (
            403,
            "Forbidden",
            'jobs "x" is forbidden: status unknown for quota: q, resources: count/jobs.batch',
            "ApiUnreachable",
        ),
        (
            403,
            "Forbidden",
            'pods "x" is forbidden: maximum memory usage per Container is 1Gi, but limit is 2Gi',
            "QuotaExceeded",
        ),
        (
            403,
            "Forbidden",
            'jobs.batch "x" is forbidden: unable to create new content in namespace training '
            "because it is being terminated",
            "NamespaceMissing",
        ),
        (
            403,
            "Forbidden",
            'pods "x" is forbidden: violates PodSecurity "restricted:latest": '
            "allowPrivilegeEscalation != false",
            "ManifestRefused",
        ),
        (
            403,
            "Forbidden",
            'pods "x" is forbidden: error looking up service account training/runs: '
            'serviceaccount "runs" not found',
            "ManifestRefused",
        ),
        (
            400,
            "BadRequest",
            'admission webhook "images.example" denied the request: no latest',
            "ManifestRefused",
        ),
        (
            400,
            "BadRequest",
            'Job in version "v1" cannot be handled as a Job: strict decoding error: unknown field '
            '"spec.colour"',
            "ManifestRefused",
        ),
        (404, "NotFound", 'namespaces "training" not found', "NamespaceMissing"),
        (404, "NotFound", "the server could not find the requested resource", "KindUnknown"),
        (404, "NotFound", 'pods "x" not found', "Cluster"),
        (405, "MethodNotAllowed", "the server does not allow this method", "KindUnknown"),
        (409, "AlreadyExists", 'jobs.batch "my-run" already exists', "Conflict"),
        (
            409,
            "Conflict",
            'Operation cannot be fulfilled on resourcequotas "gpus": the object has been modified',
            "ApiUnreachable",
        ),
        (410, "Expired", "The provided continue parameter is too old", "Gone"),
        (422, "Invalid", 'Job.batch "my-run" is invalid: spec: Required value', "ManifestRefused"),
        (429, "TooManyRequests", "too many requests", "ApiUnreachable"),
        (500, "InternalError", "etcdserver: request timed out", "ApiUnreachable"),
        (504, "Timeout", "request did not complete", "ApiUnreachable"),
        (418, "Teapot", "short and stout", "Cluster"),
    ],
)
def test_what_it_means(status: int, reason: str, message: str, code: str) -> None:
    found = _refusal(status, reason, message)

    assert found.code == code
    assert found.status == status
    assert found.later == ("exceeded quota" in message)
    assert found.transient == (code == "ApiUnreachable")
    assert message in found.message
    assert "create jobs my-run in the namespace training" in found.message
    assert found.hint or code == "Cluster"


def test_all_causes_are_told_that_the_sentence_leaves_out() -> None:
    found = _refusal(
        422,
        "Invalid",
        'Job.batch "my-run" is invalid: spec.template.spec.containers[0].image: Required value',
        causes=[
            {"field": "spec.template.spec.containers[0].image", "message": "Required value"},
            {"field": "spec.completions", "message": "must be greater than 0"},
        ],
    )

    assert found.message.count("Required value") == 1
    assert "spec.completions: must be greater than 0" in found.message


def test_a_sentence_without_end_is_cut() -> None:
    assert len(_refusal(422, "Invalid", "x" * 10_000).message) < 3000


@pytest.mark.parametrize("body", [b"", b"<html>sign in</html>", b"[]", b'{"a": 1}', b"\xff"])
def test_an_answer_of_somebody_else(body: bytes) -> None:
    found = from_response(_CREATE, 502, body)

    assert found.code == "ApiUnreachable"
    assert "HTTP 502" in found.message


def test_the_hint_names_what_is_to_be_allowed_and_where() -> None:
    message = 'jobs.batch is forbidden: User "ann" cannot create resource "jobs"'

    assert "create of jobs" in _refusal(403, "Forbidden", message).hint
    missing = _refusal(404, "NotFound", 'namespaces "training" not found')
    assert "kubectl create namespace training" in missing.hint


def test_it_is_told_as_other_errors_are() -> None:
    found = _refusal(409, "AlreadyExists", "it exists").as_dict()

    assert found["code"] == "Conflict"
    assert set(found) == {"code", "message", "hint"}
