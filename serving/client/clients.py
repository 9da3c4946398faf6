"""The synchronous and the asynchronous client."""

import time
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, overload

import httpx

from .answers import Answer
from .cells import Array
from .exchange import Exchange, Failure, Flow, Outcome, Post

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")


class Client(Exchange):
    """Sends rows to one service; threads may share it and its connections.

        with Client("http://localhost:3000") as client:
            predictions = client.predict(frame)

    Args:
        url: of the service, with a proxy's path if there is one.
        headers: for every request, such as {"Authorization": "Bearer …"}.
        timeout_seconds: of each request, including its retries. The service gets it as its timeout, and its timeout
            error is awaited for one second longer.
        retries: maximum retries of a request, after a connection that failed before the answer and after 503 and 429:
            as `Retry-After` says, else with backoff: a quarter of a second, a half, one.
        transport: httpx's, for certificates, proxies and tests.

    Raises:
        ValueError: an argument is invalid.
    """

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        timeout_seconds: float = 60.0,
        retries: int = 3,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        super().__init__(url, headers, timeout_seconds, retries)
        self._http = httpx.Client(transport=transport, **self._options)

    @overload
    def predict(
        self,
        rows: "pd.DataFrame | pd.Series[Any]",
        *,
        params: Mapping[str, Any] | None = None,
        model_version: str | int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> "pd.DataFrame": ...

    @overload
    def predict(
        self,
        rows: Any,
        *,
        params: Mapping[str, Any] | None = None,
        model_version: str | int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any: ...

    def predict(
        self,
        rows: Any,
        *,
        params: Mapping[str, Any] | None = None,
        model_version: str | int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Returns a prediction for each row.

        Args:
            rows: a pandas DataFrame, an Arrow table (or anything convertible, such as a polars DataFrame), a structured
                array, a dict of columns, or a list of records; for a tensor signature an array, for a text model a series
                or a list of texts. None, NaN, NaT and NA are missing values. Datetimes with a zone become UTC; bytes are
                for binary columns.
            params: of the signature.
            model_version: the version, alias or role to answer, if the service lets callers choose.
            headers: for these requests.

        Returns:
            For a DataFrame another one with its index: `prediction`, and `probability_…` for each class of a classifier;
            for several outputs `prediction_…` for each. Its `attrs` have `model` (name and version) and `request_ids`.
            For other rows the service's predictions, a list of dicts: `label` and `probabilities`, or `value`.

        Raises:
            ClientError: there is no prediction; `errors` has the kinds.
            TypeError, ValueError: the rows have an invalid type or shape.
        """
        return self._run(self._predict(rows, params, model_version, headers))

    def predict_batch(
        self,
        rows: Any,
        *,
        model_version: str | int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Array:
        """Returns predictions as one array; faster for many rows. They are sent as Arrow if pyarrow is installed, or `.npy`.

        Args:
            rows: as for `predict`; also a plain array of shape `(n_rows, n_columns)` in the order of the signature.
            model_version: as for `predict`.
            headers: the same.

        Returns:
            Probabilities, shape `(n_rows, n_classes)`; for models without them labels or values, shape `(n_rows,)` or
            `(n_rows, n_outputs)`.

        Raises: as `predict`.
        """
        return self._run(self._predict_batch(rows, model_version, headers))

    def _run(self, flow: Flow[T]) -> T:
        outcome: Outcome = None
        while True:
            try:
                step = flow.send(outcome)
            except StopIteration as end:
                result: T = end.value
                return result
            outcome = None
            if isinstance(step, Post):
                outcome = self._post(step)
            else:
                time.sleep(step)

    def _post(self, post: Post) -> Answer | Failure:
        has_answered = False
        try:
            with self._http.stream("POST", **post.options()) as response:
                has_answered = True
                content = bytearray()
                for part in response.iter_bytes():
                    content += part
                    post.check()
                return Answer(response.status_code, response.headers, bytes(content))
        except httpx.HTTPError as error:
            return Failure(error, has_answered)

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncClient(Exchange):
    """`Client` for asyncio: its methods are awaited, and `aclose` closes it."""

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        timeout_seconds: float = 60.0,
        retries: int = 3,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        super().__init__(url, headers, timeout_seconds, retries)
        self._http = httpx.AsyncClient(transport=transport, **self._options)

    async def predict(
        self,
        rows: Any,
        *,
        params: Mapping[str, Any] | None = None,
        model_version: str | int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """As `Client.predict`."""
        return await self._run(self._predict(rows, params, model_version, headers))

    async def predict_batch(
        self,
        rows: Any,
        *,
        model_version: str | int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Array:
        """As `Client.predict_batch`."""
        return await self._run(self._predict_batch(rows, model_version, headers))

    async def _run(self, flow: Flow[T]) -> T:
        import asyncio  # not needed by the other client, and slow to load

        outcome: Outcome = None
        while True:
            try:
                step = flow.send(outcome)
            except StopIteration as end:
                result: T = end.value
                return result
            outcome = None
            if isinstance(step, Post):
                outcome = await self._post(step)
            else:
                await asyncio.sleep(step)

    async def _post(self, post: Post) -> Answer | Failure:
        has_answered = False
        try:
            async with self._http.stream("POST", **post.options()) as response:
                has_answered = True
                content = bytearray()
                async for part in response.aiter_bytes():
                    content += part
                    post.check()
                return Answer(response.status_code, response.headers, bytes(content))
        except httpx.HTTPError as error:
            return Failure(error, has_answered)

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
