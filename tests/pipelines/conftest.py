"""An S3 server on loopback, as the tests of storage have it."""

from tests.infra.storage.conftest import _server, bucket, s3_client, server

__all__ = ["_server", "bucket", "s3_client", "server"]
