"""What a test makes lives as long as its client."""

from __future__ import annotations

from minilog_client import AsyncClient


class HoldingClient(AsyncClient):
    """Forgets no consumer before it is closed."""

    def __init__(self, *arguments: object, **options: object) -> None:
        super().__init__(*arguments, **options)  # type: ignore[arg-type]
        self._consumers = set()  # type: ignore[assignment]
