"""Show a leaderboard's folder in a browser of this machine."""

from __future__ import annotations

from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from negbench.errors import MissingError, StorageError

HOST = "127.0.0.1"


class _Files(SimpleHTTPRequestHandler):
    """Files of one folder: no listing, nothing hidden, no link out of it, no log on stderr."""

    server_version = "negbench"
    sys_version = ""
    extensions_map = SimpleHTTPRequestHandler.extensions_map | {
        ".json": "application/json; charset=utf-8",
        ".csv": "text/csv; charset=utf-8",
        ".html": "text/html; charset=utf-8",
        ".lock": "text/plain; charset=utf-8",
        ".parquet": "application/vnd.apache.parquet",
    }

    def send_head(self) -> Any:
        """The file asked for, if it lies in the folder."""
        root = Path(self.directory).resolve()
        asked = Path(self.translate_path(self.path))
        inside = asked.resolve().is_relative_to(root)
        parts = asked.relative_to(root).parts if asked.is_relative_to(root) else ("..",)
        if not inside or any(part.startswith(".") for part in parts):
            self.send_error(404)
            return None
        return super().send_head()

    def list_directory(self, path: Any) -> None:
        """No listing."""
        del path
        self.send_error(404)

    def end_headers(self) -> None:
        """Nobody frames it, guesses types, or keeps an old copy."""
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Content-Security-Policy", "frame-ancestors 'none'")
        self.send_header("Cache-Control", "no-cache")
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Quiet."""


def make_server(board: Path, *, port: int = 0) -> ThreadingHTTPServer:
    """A server of the folder on 127.0.0.1, not yet running.

    Args:
        board: folder of the leaderboard.
        port: 0 for any free one.

    Raises:
        MissingError: there is no page.
        StorageError: the port is taken.
    """
    if not (board / "index.html").is_file():
        raise MissingError(f"{board} has no index.html; run `negbench leaderboard build`")
    try:
        return ThreadingHTTPServer((HOST, port), partial(_Files, directory=str(board.resolve())))
    except (OSError, OverflowError) as error:
        raise StorageError(f"port {port} cannot be used: {error}; give another --port") from error
