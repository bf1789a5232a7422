"""An HTTP server on this machine that breaks connections, changes its file and refuses."""

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

CONTENT = bytes(range(256)) * 40
OTHER = CONTENT[::-1]


class Server(ThreadingHTTPServer):
    """Serves one content at every path that begins with /file, and counts what it is asked.

    Attributes:
        content: of the file.
        etag: its validator; None for a server that gives none.
        ranges: whether it answers a request for a part with that part.
        careless: whether it does so though it has another file by now.
        breaks: after how many bytes it drops each of the next connections.
        status: what it answers instead of 200.
        requests: the `Range` of each request, in order.
    """

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = CONTENT
        self.etag = '"one"'
        self.ranges = True
        self.breaks = []
        self.status = 200
        self.careless = False
        self.requests = []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/file"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        wanted = self.headers.get("Range")
        server.requests.append(wanted)
        if server.status != 200 or not self.path.startswith("/file"):
            self.send_error(server.status if server.status != 200 else 404)
            return
        start = 0
        same = server.careless or self.headers.get("If-Range") == server.etag
        if wanted and server.ranges and same:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            self.send_response(206)
            last = len(server.content) - 1
            self.send_header("Content-Range", f"bytes {start}-{last}/{len(server.content)}")
        else:
            self.send_response(200)
        if server.etag:
            self.send_header("ETag", server.etag)
        body = server.content[start:]
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: server.breaks.pop(0)] if server.breaks else body)

    def log_message(self, *arguments):
        pass
