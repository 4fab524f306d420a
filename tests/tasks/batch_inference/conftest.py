"""Fixtures of an S3 server on loopback."""

from tests.infra.storage.conftest import _server, bucket, open_to_all, s3_client, server

__all__ = ["_server", "bucket", "open_to_all", "s3_client", "server"]
