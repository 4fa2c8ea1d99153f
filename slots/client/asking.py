"""What every call of the client goes through: the service, the model's name, and jobs that are waited for."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

from slots.client.documents import Job, record
from slots.client.transport import Transport, error_kind
from slots.errors import ServiceError, UsageError
from slots.progress import Progress

_POLL_SECONDS = 0.2


class Asking:
    """A model of a service, as `slots.Client` describes it.

    Parameters
    ----------
    address, model, key, timeout, retries
        As in `slots.Client`.
    """

    def __init__(
        self,
        address: str = "http://127.0.0.1:8080",
        *,
        model: str | None = None,
        key: str | None = None,
        timeout: float = 30.0,
        retries: int = 5,
    ) -> None:
        self._transport = Transport(address, key, timeout, retries)
        self._model = model

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    @property
    def model(self) -> str:
        """The model's name.

        Raises
        ------
        UsageError
            If none was given, and the service serves several.
        """
        if self._model is None:
            names = [it["name"] for it in self._transport.ask("GET", "/api/v1/models")]
            if len(names) != 1:
                raise UsageError(f"`model` must be one of {', '.join(names) or 'none'}. Give it to the client.")
            self._model = names[0]
        return self._model

    def health(self) -> bool:
        """Whether the service takes requests."""
        try:
            return bool(self._transport.ask("GET", "/api/v1/ready")["ready"])
        except ServiceError:
            return False

    def _path(self, path: str) -> str:
        return f"/api/v1/models/{quote(self.model, safe='')}{path}"

    def _ask(self, method: str, path: str, **more: Any) -> Any:
        return self._transport.ask(method, self._path(path), **more)

    def _job(self, path: str, order: dict[str, Any], wait: float, progress: Progress) -> Job:
        return self._followed(self._ask("POST", path, body=order, repeatable=False), wait, progress)

    def _followed(self, document: Mapping[str, Any], wait: float, progress: Progress) -> Job:
        until = time.monotonic() + wait
        job = record(Job, document)
        while not job.over:
            if time.monotonic() > until:
                raise ServiceError(f"The job {job.id} is not done after {wait} seconds. It goes on; wait longer.")
            progress(job.step, job.share)
            time.sleep(_POLL_SECONDS)
            job = record(Job, self._transport.ask("GET", f"/api/v1/jobs/{job.id}"))
        if job.state == "failed":
            said = job.error or {}
            raise error_kind(int(said.get("status", 500)))(
                str(said.get("detail", "The job failed, and nobody said why."))
            )
        if job.state != "done":
            raise ServiceError(f"The job {job.id} was {job.state}: nothing of it is kept. Start it again.")
        progress(job.step, job.share)
        return job
