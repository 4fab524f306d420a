"""Errors of object storage for users, and which of them are transient.

Nothing that a server says in words is repeated: only its error code is, so that no message can
hold a key, a token or a signed address.
"""

from __future__ import annotations

import re
from typing import Any

from botocore import exceptions as boto
from botocore.parsers import ResponseParserError
from urllib3 import exceptions as http

from infra.errors import BadInputError, DiskFullError, ModelyardError, NotFoundError


class StoreError(ModelyardError):
    """A store failed although the request was valid."""

    code = "Store"


# After these a repeat resumes: the transfer was interrupted, or a temporary key expired.
RESUMABLE = {"StoreUnreachable", "TransferBroken", "CredentialsWrong"}

_Kind = tuple[type[ModelyardError], str, str, str]

_CREDENTIALS_WRONG: _Kind = (
    BadInputError, "CredentialsWrong", "the server refuses the access key or its signature",
    "Check the access key's id and secret: those of the access (modelyard storage list), or the "
    "settings MODELYARD_S3_… and MODELYARD_OBS_….",
)  # fmt: skip
_ACCESS_DENIED: _Kind = (
    BadInputError, "AccessDenied", "this access key has no permission for it",
    "Use a key that may list, read and write there, or another place.",
)  # fmt: skip
_REGION_WRONG: _Kind = (
    BadInputError, "RegionWrong", "the bucket belongs to another region or endpoint",
    "Correct the region or the endpoint: --region and --endpoint of modelyard storage add, or "
    "MODELYARD_S3_REGION and MODELYARD_OBS_REGION.",
)  # fmt: skip
_STORE_FULL: _Kind = (
    DiskFullError, "StoreFull", "the storage or its quota is full",
    "Make room there, or raise the quota, and retry.",
)  # fmt: skip
_ANSWERS: dict[str, _Kind] = {
    **dict.fromkeys(
        ("InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken",
         "TokenRefreshRequired", "InvalidSecurity", "NotSignedUp", "401", "403", "Forbidden",
         "Unauthorized"),
        _CREDENTIALS_WRONG,
    ),
    **dict.fromkeys(("AccessDenied", "AllAccessDisabled", "AccountProblem"), _ACCESS_DENIED),
    **dict.fromkeys(
        ("PermanentRedirect", "TemporaryRedirect", "301", "307",
         "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"),
        _REGION_WRONG,
    ),
    **dict.fromkeys(
        ("QuotaExceeded", "InsufficientStorage", "XMinioStorageFull", "507"), _STORE_FULL
    ),
    "NoSuchBucket": (
        NotFoundError, "BucketMissing", "there is no such bucket or container",
        "Check its name, or make it.",
    ),
    "RequestTimeTooSkewed": (
        StoreError, "ClockWrong", "this machine's clock and the server's differ too much",
        "Set the clock of this machine.",
    ),
}  # fmt: skip
_BROKEN: _Kind = (
    StoreError, "TransferBroken", "the connection broke off again and again",
    "Retry: what was transferred is kept.",
)  # fmt: skip
_UNREACHABLE: _Kind = (
    StoreError, "StoreUnreachable", "its server cannot be reached",
    "Check the endpoint and the network.",
)  # fmt: skip
_NO_TRUST: _Kind = (
    StoreError, "CertificateWrong", "no trusted connection can be made to its server",
    "Check its certificate; a server that speaks plain http is named in "
    "MODELYARD_OBS_PLAIN_HTTP or has an http:// MODELYARD_S3_ENDPOINT_URL.",
)  # fmt: skip
_NO_CREDENTIALS: _Kind = (
    BadInputError, "CredentialsMissing", "there is no access key for it",
    "Give it one: modelyard storage add NAME URI --key-id ID. Or set MODELYARD_S3_ACCESS_KEY_ID "
    "and MODELYARD_S3_SECRET_ACCESS_KEY, for obs:// the same with OBS.",
)  # fmt: skip

# What OpenSSL says of a server whose certificate is not trusted, or that speaks no TLS.
_UNTRUSTED = ("CERTIFICATE_VERIFY_FAILED", "WRONG_VERSION_NUMBER", "record layer failure")

# In this order: the first that fits counts.
_FAULTS: tuple[tuple[tuple[type[Exception], ...], _Kind], ...] = (
    (
        (boto.EndpointConnectionError, boto.ConnectTimeoutError, boto.ProxyConnectionError),
        _UNREACHABLE,
    ),
    (
        (boto.NoCredentialsError, boto.PartialCredentialsError, boto.CredentialRetrievalError,
         boto.ProfileNotFound, boto.TokenRetrievalError, boto.SSOError),
        _NO_CREDENTIALS,
    ),
    (
        (boto.HTTPClientError, boto.IncompleteReadError, boto.ResponseStreamingError,
         boto.ChecksumError, boto.FlexibleChecksumError, boto.SSLError, ResponseParserError,
         http.HTTPError, ConnectionError, TimeoutError),
        _BROKEN,
    ),
)  # fmt: skip

_TRANSIENT_KINDS = (_BROKEN, _UNREACHABLE)
_TRANSIENT_CODES = {
    "BadDigest", "ConditionalRequestConflict", "IncompleteBody", "InternalError",
    "OperationAborted", "RequestTimeout", "ServiceUnavailable", "SlowDown", "Throttling",
    "ThrottlingException", "TooManyRequests", "XAmzContentSHA256Mismatch",
}  # fmt: skip
# What the code of a client's error may look like; anything else a server made up.
_CODE = re.compile(r"[A-Za-z0-9]{1,64}")

# Everything that a call to object storage may raise beside bugs of ours.
FAULTS = (
    boto.BotoCoreError, boto.ClientError, ResponseParserError, http.HTTPError, ConnectionError,
    TimeoutError,
)  # fmt: skip


def code_of(error: BaseException) -> str:
    """Return the error code of a response, such as ``NoSuchKey``; else empty."""
    if not isinstance(error, boto.ClientError):
        return ""
    code = str(error.response.get("Error", {}).get("Code", ""))
    return code if _CODE.fullmatch(code) else "Unknown"


def status_of(error: BaseException) -> int:
    """Return the HTTP status of an error response; else 0."""
    if not isinstance(error, boto.ClientError):
        return 0
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _kind(error: BaseException) -> _Kind | None:
    if isinstance(error, boto.ClientError):
        if _is_transient_answer(error):
            return _BROKEN
        return _ANSWERS.get(code_of(error)) or _ANSWERS.get(str(status_of(error)))
    if isinstance(error, boto.SSLError) and any(word in str(error) for word in _UNTRUSTED):
        return _NO_TRUST
    return next((kind for types, kind in _FAULTS if isinstance(error, types)), None)


def _is_transient_answer(error: boto.ClientError) -> bool:
    status = status_of(error)
    return code_of(error) in _TRANSIENT_CODES or (500 <= status < 600 and status not in {501, 507})


def refuses_the_key(answer: Any) -> bool:
    """Whether a response, as boto3 parses it, refuses the access key."""
    return "Error" in answer and _kind(boto.ClientError(answer, "")) is _CREDENTIALS_WRONG


def is_transient(error: BaseException) -> bool:
    """Whether a retry of the same request may succeed."""
    return _kind(error) in _TRANSIENT_KINDS


def is_unreachable(error: BaseException) -> bool:
    """Whether no connection could be made at all."""
    return _kind(error) is _UNREACHABLE


def translate(uri: str, error: BaseException) -> ModelyardError:
    """Translate ``error`` to an error for users."""
    kind = _kind(error)
    if kind is None:
        what = code_of(error) or type(error).__name__
        return StoreError(
            f"{uri}: the server or its client failed with {what}.",
            "Check that the server speaks the S3 protocol, and its log.",
            code="StoreFailed",
        )
    family, code, what, hint = kind
    seen = f" ({code_of(error) or type(error).__name__})" if kind is _BROKEN else ""
    return family(f"{uri}: {what}{seen}.", hint, code=code)


def silent(uri: str, seconds: float) -> ModelyardError:
    """Build the error for a server that accepts a connection, and does not answer."""
    family, code, _, hint = _UNREACHABLE
    return family(
        f"{uri}: its server accepted the connection, but sent no answer for {seconds:g} s.",
        hint, code=code,
    )  # fmt: skip


def no_credentials(uri: str) -> ModelyardError:
    """Build the error for missing or incomplete credentials."""
    family, code, what, hint = _NO_CREDENTIALS
    return family(f"{uri}: {what}.", hint, code=code)


def checksum_mismatch(what: str) -> StoreError:
    """Build the error for bytes that twice did not match their checksum."""
    return StoreError(
        f"{what}: the bytes that arrived are not those that were sent, twice.",
        "Retry; if it stays so, the network or the stored object is damaged.",
        code="ChecksumMismatch",
    )


def object_changed(what: str) -> StoreError:
    """Build the error for an object that was replaced or deleted while it was read."""
    return StoreError(
        f"{what} was changed or deleted while it was fetched.",
        "Repeat the fetch while nothing writes there.",
        code="ObjectChanged",
    )


def file_changed(what: str) -> StoreError:
    """Build the error for a local file that was written while it was read."""
    return StoreError(
        f"{what} changed while it was read.",
        "Publish again while nothing writes to it.",
        code="FileChanged",
    )


def upload_disturbed(what: str) -> StoreError:
    """Build the error for an upload that another client ended or changed, twice."""
    return StoreError(
        f"The upload of {what} was ended or changed by another client.",
        "Let only one publish at a time write to the same place.",
        code="UploadDisturbed",
    )
