"""An API server that answers as the test says."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from infra.kubernetes.api_errors import ClusterError
from infra.kubernetes.transport import RetryPolicy

QUICK = RetryPolicy(
    attempts=3,
    seconds=20.0,
    connect_seconds=5.0,
    silent_seconds=5.0,
    first_wait=0.001,
    longest_wait=0.002,
)


def refused(call: Callable[[], object]) -> ClusterError:
    """The error that a call raises; none of these tests' secrets is in it."""
    with pytest.raises(ClusterError) as caught:
        call()
    assert "canary" not in str(caught.value)
    return caught.value


@dataclass
class Answer:
    status: int = 200
    body: Any = None  # bytes, or an object to be written as JSON
    headers: dict[str, str] = field(default_factory=dict)
    hangs: bool = False
    cut: bool = False  # the connection breaks off in the middle of the body
    chunks: list[bytes] | None = None


@dataclass(frozen=True)
class Asked:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


def status(code: int, reason: str, message: str, **details: Any) -> Answer:
    return Answer(
        code,
        {
            "kind": "Status",
            "apiVersion": "v1",
            "status": "Failure",
            "message": message,
            "reason": reason,
            "details": details,
            "code": code,
        },
    )


class ScriptedServer:
    """Answers in the order of ``answers``, the last one for ever, and keeps what it was asked."""

    def __init__(self, *answers: Answer | Callable[[Asked], Answer]) -> None:
        self.answers = list(answers)
        self.asked: list[Asked] = []
        self._free = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    def __enter__(self) -> ScriptedServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._free.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def secure(self, context: Any) -> None:
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = self.url.replace("http://", "https://")

    def _answer(self, asked: Asked) -> Answer:
        self.asked.append(asked)
        found = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return found if isinstance(found, Answer) else found(asked)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def _do(self) -> None:
                length = int(self.headers.get("content-length") or 0)
                body = self.rfile.read(length)
                target = urlsplit(self.path)
                headers = {name.lower(): value for name, value in self.headers.items()}
                query = dict(parse_qsl(target.query))
                asked = Asked(
                    self.command, target.path, query, headers, json.loads(body) if body else None
                )
                self._write(server._answer(asked))

            def _write(self, answer: Answer) -> None:
                if answer.hangs:
                    server._free.wait(30)
                    self.close_connection = True
                    return
                if answer.chunks is not None:
                    self._write_chunks(answer)
                    return
                data = (
                    answer.body
                    if isinstance(answer.body, bytes)
                    else json.dumps(answer.body).encode()
                )
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(data) + (10 if answer.cut else 0)))
                self.end_headers()
                self.wfile.write(data)
                self.close_connection = answer.cut

            def _write_chunks(self, answer: Answer) -> None:
                self.send_response(answer.status)
                self.send_header("transfer-encoding", "chunked")
                self.end_headers()
                for chunk in answer.chunks or []:
                    self.wfile.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
                    self.wfile.flush()
                if answer.cut:
                    self.close_connection = True
                else:
                    self.wfile.write(b"0\r\n\r\n")

            do_GET = do_POST = do_PATCH = do_DELETE = _do

        return Handler


def certificate(path: Path) -> None:
    """Write a certificate for loopback that is its own authority: ``path.crt``, ``path.key``."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, path.name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    path.with_suffix(".crt").write_bytes(made.public_bytes(pem))
    path.with_suffix(".key").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


def kubeconfig(
    path: Path, server: str, *, user: dict[str, Any] | None = None, **cluster: Any
) -> Path:
    """Write a kubeconfig with one context, called test."""
    path.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "test",
                "contexts": [
                    {
                        "name": "test",
                        "context": {"cluster": "test", "user": "test", "namespace": "runs"},
                    }
                ],
                "clusters": [{"name": "test", "cluster": {"server": server, **cluster}}],
                "users": [{"name": "test", "user": user or {"token": "canary-token"}}],
            }
        )
    )
    return path
