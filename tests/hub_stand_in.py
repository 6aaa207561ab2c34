"""A stand-in for the hub's HTTP API on this machine: enough to create a repo, list, upload, commit.

Faults are asked for by request: ``hub.fail(["commit"], 500)`` lets the next matching request fail.
"""

from __future__ import annotations

import base64
import hashlib
import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


class Hub:
    """The state of one repo and the faults that are still to happen."""

    def __init__(self):
        self.files: dict[str, bytes] = {}
        self.lfs: set[str] = set()
        self.blobs: dict[str, bytes] = {}
        self.created: dict = {}
        self.commits: list[list[str]] = []
        self.faults: list[tuple[str, int]] = []
        self.requests: list[str] = []

    def fail(self, words, status, times=1):
        """The next requests whose path has the word get `status`; 0 cuts the connection."""
        self.faults += [(word, status) for word in words] * times

    def __enter__(self):
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args):
                pass

            def reply(self, status, body=b"", headers=()):
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.send_header("Content-Type", "application/json")
                for key, value in headers:
                    self.send_header(key, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(data)

            def handle_any(self):
                length = int(self.headers.get("Content-Length") or 0)
                chunked = self.headers.get("Transfer-Encoding", "") == "chunked"
                body = self.chunks() if chunked else self.rfile.read(length)
                path = unquote(urlsplit(self.path).path)
                hub.requests.append(f"{self.command} {path}")
                for fault in list(hub.faults):
                    if fault[0] in path:
                        hub.faults.remove(fault)
                        if fault[1] == 0:
                            self.close_connection = True
                            self.connection.shutdown(socket.SHUT_RDWR)
                            return
                        self.reply(fault[1], {"error": "a fault"})
                        return
                hub.answer(self, path, body)

            def chunks(self):
                found = b""
                while size := int(self.rfile.readline().strip() or b"0", 16):
                    found += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
                return found

            do_GET = do_POST = do_PUT = do_HEAD = handle_any

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    def answer(self, handler, path, body):
        if path == "/api/repos/create":
            exists = bool(self.created)
            self.created = self.created or json.loads(body)
            name = f"{self.created['organization']}/{self.created['name']}"
            handler.reply(409 if exists else 200, {"url": f"{self.address}/datasets/{name}"})
        elif "/tree/" in path:
            handler.reply(200, [self.item(name, data) for name, data in self.files.items()])
        elif "/preupload/" in path:
            files = [
                {
                    "path": item["path"],
                    "uploadMode": "lfs" if item["path"].endswith(".parquet") else "regular",
                    "shouldIgnore": False,
                }
                for item in json.loads(body)["files"]
            ]
            handler.reply(200, {"files": files})
        elif path.endswith("/info/lfs/objects/batch"):
            objects = []
            for item in json.loads(body)["objects"]:
                found = {"oid": item["oid"], "size": item["size"]}
                if item["oid"] not in self.blobs:
                    href = f"{self.address}/lfs/{item['oid']}"
                    found["actions"] = {"upload": {"href": href, "header": {}}}
                objects.append(found)
            handler.reply(200, {"transfer": "basic", "objects": objects})
        elif path.startswith("/lfs/"):
            self.blobs[path.removeprefix("/lfs/")] = body
            handler.reply(200)
        elif "/commit/" in path:
            self.commit([json.loads(line) for line in body.splitlines()])
            url = f"{self.address}/datasets/org/name/commit/{'0' * 40}"
            handler.reply(200, {"commitUrl": url, "commitOid": "0" * 40})
        elif "/resolve/" in path:
            name = path.split("/resolve/main/")[-1]
            data = self.files[name]
            etag = hashlib.sha1(data).hexdigest()
            headers = [("ETag", f'"{etag}"'), ("X-Repo-Commit", "0" * 40)]
            handler.reply(200, data, headers)
        else:
            handler.reply(200, {"sha": "0" * 40, "id": "org/name", "siblings": []})

    def item(self, name, data):
        blob = hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()
        found = {"type": "file", "path": name, "size": len(data), "oid": blob}
        if name in self.lfs:
            found["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data),
                            "pointerSize": 130}  # fmt: skip
        return found

    def commit(self, lines):
        names = []
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                self.files[value["path"]] = base64.b64decode(value["content"])
                names.append(value["path"])
            elif line["key"] == "lfsFile":
                self.files[value["path"]] = self.blobs[value["oid"]]
                self.lfs.add(value["path"])
                names.append(value["path"])
            elif line["key"] == "deletedFile":
                del self.files[value["path"]]
                names.append("-" + value["path"])
        self.commits.append(names)
