"""The client of all roads: no answer makes it read more than somebody asked for.

Left alone, httpx reads the whole body of every redirect, of every 401 that it answers with a login, and of every answer
to a POST or PUT, however long. Only what a GET brings successfully is of use here, and whoever asked bounds that.
"""

from __future__ import annotations

from collections.abc import Iterator

import httpx

MAX_DEAD_BYTES = 1 << 16  # of what nobody will look at: read so that the connection can be used again


class _Unread(httpx.SyncByteStream):
    """A body that nobody will look at."""

    def __init__(self, body: httpx.SyncByteStream) -> None:
        self._body = body

    def __iter__(self) -> Iterator[bytes]:
        read_bytes = 0
        for chunk in self._body:
            read_bytes += len(chunk)
            if read_bytes > MAX_DEAD_BYTES:
                break  # the connection is given up: `close` follows
        return iter(())

    def close(self) -> None:
        self._body.close()


def _pass_over(response: httpx.Response) -> None:
    wanted = response.is_success and response.request.method == "GET"
    if not wanted and isinstance(response.stream, httpx.SyncByteStream):
        response.stream = _Unread(response.stream)


def make(timeout_s: float, auth: httpx.Auth | None, *, follow_redirects: bool = True) -> httpx.Client:
    """A client that passes over bodies of no use, and forgets credentials on the way to another host."""
    return httpx.Client(
        timeout=timeout_s, follow_redirects=follow_redirects, max_redirects=8, auth=auth,
        event_hooks={"response": [_pass_over]},
    )  # fmt: skip
