"""Fixtures of an S3 server on loopback."""

from tests.infra.storage.conftest import _server, bucket, s3_client, server

__all__ = ["_server", "bucket", "s3_client", "server"]
