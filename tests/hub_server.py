"""As much of the Hugging Face Hub as its own client needs, on this machine.

Repositories live in memory. Faults are asked for by the test: a download that is cut
once, a file whose content is changed on its way.
"""

import base64
import hashlib
import http.server
import json
import re
import threading
from urllib.parse import unquote

TOKEN = "hf_test"


class HubServer(http.server.ThreadingHTTPServer):
    """Serves on a free port of the loopback.

    ``repos`` holds the files by repository, ``private`` the names of private ones,
    ``requests`` the lines of all requests and ``ranges`` what was asked for in part.
    ``cut`` are names of files to cut once half way, ``tamper`` maps names of files to
    what is sent in their place.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repos = {}
        self.objects = {}
        self.private = set()
        self.requests = []
        self.ranges = []
        self.cut = set()
        self.tamper = {}
        self.url = f"http://127.0.0.1:{self.server_port}"

    def __enter__(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exception):
        self.shutdown()
        self.server_close()

    def commit(self, repo):
        """The hash of a repository's only commit."""
        digest = hashlib.sha1(repo.encode())
        for name, content in sorted(self.repos[repo].items()):
            digest.update(name.encode() + content)
        return digest.hexdigest()


def _etag(name, content):
    # Of git for small files, as on the Hub; of the content for large ones.
    if name.endswith(".safetensors"):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        """Tests read ``requests`` instead."""

    def answer(self, status, value=None, headers=()):
        body = b"" if value is None else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        for name, text in headers:
            self.send_header(name, text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def error(self, status, code, message):
        headers = [("X-Error-Code", code), ("X-Error-Message", message)]
        self.answer(status, {"error": message}, headers)

    def body(self):
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def authorised(self):
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def repo_or_error(self, repo):
        """Whether the repository can be seen; otherwise the answer is on its way."""
        server = self.server
        if repo in server.repos and (repo not in server.private or self.authorised()):
            return True
        if self.authorised():
            self.error(404, "RepoNotFound", "Repository not found")
        else:
            # The Hub does not tell strangers which repositories exist.
            self.error(401, "RepoNotFound", "Repository not found")
        return False

    def handle_request(self):
        self.server.requests.append(f"{self.command} {self.path}")
        path = unquote(self.path.partition("?")[0])
        for pattern, name in _ROUTES:
            match = re.fullmatch(pattern, f"{self.command} {path}")
            if match:
                return getattr(self, name)(*match.groups())
        return self.error(404, "EntryNotFound", "no such route")

    do_GET = do_HEAD = do_POST = do_PUT = handle_request

    def create(self):
        wanted = json.loads(self.body())
        if not self.authorised():
            return self.error(401, "", "Invalid username or password.")
        repo = f"{wanted['organization']}/{wanted['name']}"
        if repo in self.server.repos:
            body = {"error": "You already created this model repo"}
            return self.answer(409, {**body, "url": f"{self.server.url}/{repo}"})
        self.server.repos[repo] = {}
        if wanted.get("visibility") == "private" or wanted.get("private"):
            self.server.private.add(repo)
        return self.answer(200, {"url": f"{self.server.url}/{repo}", "id": repo})

    def validate(self):
        content = json.loads(self.body())["content"]
        good = content.startswith("---\n")
        self.answer(200 if good else 400, {"errors": [], "warnings": []})

    def preupload(self, repo):
        files = json.loads(self.body())["files"]
        if self.repo_or_error(repo):
            self.answer(
                200,
                {
                    "files": [
                        {
                            "path": file["path"],
                            "uploadMode": "lfs"
                            if file["path"].endswith(".safetensors")
                            else "regular",
                            "shouldIgnore": False,
                        }
                        for file in files
                    ]
                },
            )

    def batch(self, repo):
        wanted = json.loads(self.body())["objects"]
        if self.repo_or_error(repo):
            objects = [
                {
                    **item,
                    "actions": {
                        "upload": {"href": f"{self.server.url}/objects/{item['oid']}"}
                    },
                }
                for item in wanted
            ]
            self.answer(200, {"transfer": "basic", "objects": objects})

    def store(self, oid):
        content = self.body()
        if hashlib.sha256(content).hexdigest() != oid:
            return self.error(400, "", "checksum mismatch")
        self.server.objects[oid] = content
        return self.answer(200)

    def commit(self, repo):
        lines = [json.loads(line) for line in self.body().splitlines()]
        if not self.repo_or_error(repo):
            return
        files = self.server.repos[repo]
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.objects[value["oid"]]
        commit = self.server.commit(repo)
        self.answer(
            200,
            {
                "success": True,
                "commitOid": commit,
                "commitUrl": f"{self.server.url}/{repo}/commit/{commit}",
            },
        )

    def info(self, repo):
        if self.repo_or_error(repo):
            commit = self.server.commit(repo)
            siblings = [{"rfilename": name} for name in self.server.repos[repo]]
            private = repo in self.server.private
            facts = {"id": repo, "sha": commit, "private": private}
            self.answer(200, {**facts, "siblings": siblings})

    def tree(self, repo):
        if not self.repo_or_error(repo):
            return
        entries = []
        for name, content in self.server.repos[repo].items():
            entry = {"type": "file", "path": name, "size": len(content)}
            entry["oid"] = hashlib.sha1(content).hexdigest()
            if name.endswith(".safetensors"):
                sha256 = hashlib.sha256(content).hexdigest()
                entry["lfs"] = {"oid": sha256, "size": len(content), "pointerSize": 1}
            entries.append(entry)
        self.answer(200, entries)

    def resolve(self, repo, name):
        server = self.server
        if not self.repo_or_error(repo):
            return
        if name not in server.repos[repo]:
            self.error(404, "EntryNotFound", "Entry not found")
            return
        content = server.repos[repo][name]
        start, total, etag = 0, len(content), _etag(name, content)
        if self.command == "GET":
            content = server.tamper.get(name, content)
            wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            if wanted:
                server.ranges.append((name, int(wanted[1])))
                start = int(wanted[1])
        part = content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(part)))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        self.send_header("ETag", f'"{etag}"')
        self.send_header("X-Repo-Commit", server.commit(repo))
        self.send_header("Accept-Ranges", "bytes")
        self.end_headers()
        if self.command == "GET":
            if name in server.cut:
                server.cut.discard(name)
                self.wfile.write(part[: len(part) // 2])
                self.close_connection = True
                return
            self.wfile.write(part)


_REPO = r"([\w.-]+/[\w.-]+)"
_ROUTES = [
    ("POST /api/repos/create", "create"),
    ("POST /api/validate-yaml", "validate"),
    (f"POST /api/models/{_REPO}/preupload/main", "preupload"),
    (f"POST /{_REPO}\\.git/info/lfs/objects/batch", "batch"),
    (r"PUT /objects/(\w+)", "store"),
    (f"POST /api/models/{_REPO}/commit/main", "commit"),
    (f"GET /api/models/{_REPO}(?:/revision/\\w+)?", "info"),
    (f"GET /api/models/{_REPO}/tree/\\w+", "tree"),
    (f"(?:GET|HEAD) /{_REPO}/resolve/\\w+/(.+)", "resolve"),
]
