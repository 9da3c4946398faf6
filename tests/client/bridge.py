"""A worker's application in this process, behind the client's own transport."""

import httpx

from tests.http.in_process import Application


class Bridge(httpx.BaseTransport):
    """Hands requests to an application, and counts them."""

    def __init__(self, application: Application) -> None:
        self._application = application
        self.paths: list[str] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        path = request.url.raw_path.decode()
        self.paths.append(path)
        answer = self._application.request(
            request.method, path, content=request.read(), headers=request.headers
        )
        return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)
