"""`python -m tests.s3_server PORT FOLDER`: moto's S3 server, with its objects on disk.

moto keeps everything in memory, so a server that is killed would come back empty, which no real
one does. Here each object is in the folder before its request is answered, and is there again
when another server starts with it. Multipart uploads that were not completed are lost, as clients
of a server that went away must expect. It also refuses an access key that it does not know.
"""

from __future__ import annotations

import hashlib
import html
import io
import os
import re
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from werkzeug.serving import run_simple
from werkzeug.test import Client

ACCESS_KEY = "tester"
_SIGNED = f"AWS4-HMAC-SHA256 Credential={ACCESS_KEY}/20260101/us-east-1/s3/aws4_request, Signature="
_UNKNOWN_KEY = (
    b'<?xml version="1.0" encoding="UTF-8"?><Error><Code>InvalidAccessKeyId</Code>'
    b"<Message>The AWS Access Key Id you provided does not exist in our records.</Message></Error>"
)

Environ = dict[str, Any]


class Kept:
    """The server's application, with a folder that has what it has."""

    def __init__(self, application: Any, folder: Path, *, port: int) -> None:
        self._application = application
        self._folder = folder
        self._client = Client(application)
        self._base_url = f"http://127.0.0.1:{port}"
        self._lock = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)
        for bucket in sorted(folder.iterdir()):
            self._ask("PUT", f"/{bucket.name}")
            for file in bucket.glob("[!.]*"):
                name, _, content = file.read_bytes().partition(b"\n")
                self._ask("PUT", f"/{bucket.name}/{name.decode()}", data=content)

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        if f"Credential={ACCESS_KEY}/" not in environ.get("HTTP_AUTHORIZATION", ""):
            start_response("403 Forbidden", [("Content-Type", "application/xml")])
            return [_UNKNOWN_KEY]
        changed = _changed(environ)
        answer = list(self._application(environ, start_response))
        for bucket, key in changed:
            self._keep(bucket, key)
        return answer

    def _keep(self, bucket: str, key: str) -> None:
        """Bring the folder up to date with one object, whichever way it was changed."""
        with self._lock:
            (self._folder / bucket).mkdir(exist_ok=True)
            if not key:
                return
            path = self._folder / bucket / hashlib.sha256(key.encode()).hexdigest()
            found = self._ask("GET", f"/{bucket}/{quote(key)}")
            if found.status_code == 404:
                path.unlink(missing_ok=True)
            else:
                temporary = path.with_name(f".{path.name}")
                temporary.write_bytes(quote(key).encode() + b"\n" + found.data)
                temporary.replace(path)

    def _ask(self, method: str, path: str, **options: Any) -> Any:
        headers = {"Authorization": _SIGNED}
        return self._client.open(
            path, method=method, base_url=self._base_url, headers=headers, **options
        )


def _changed(environ: Environ) -> list[tuple[str, str]]:
    """Return bucket and key of what a request may change; of a bucket itself the key is empty."""
    method, query = environ["REQUEST_METHOD"], environ.get("QUERY_STRING", "")
    path = environ["PATH_INFO"].encode("latin-1").decode()  # as WSGI has it
    bucket, _, key = path.lstrip("/").partition("/")
    if method in ("GET", "HEAD") or (method == "PUT" and "uploadId=" in query):
        return []
    if method == "POST" and not key:  # several are deleted at once
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
        return [(bucket, html.unescape(k)) for k in re.findall(r"<Key>(.*?)</Key>", body.decode())]
    return [(bucket, key)]


def main() -> None:
    port, folder = int(sys.argv[1]), Path(sys.argv[2])
    os.environ["MOTO_PORT"] = str(port)
    application = DomainDispatcherApplication(create_backend_app)
    kept = Kept(application, folder, port=port)
    run_simple("127.0.0.1", port, kept, threaded=True, request_handler=MotoRequestHandler)


if __name__ == "__main__":
    main()
