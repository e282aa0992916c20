"""What the environment says of the cluster: the same as it says to the command ``minilog``."""

from __future__ import annotations

import os
from typing import Final

from minilog.errors import InvalidRequest

URLS_VARIABLE: Final = "MINILOG_URL"


def urls_of_environment() -> str:
    """Raises InvalidRequest when MINILOG_URL says nothing."""
    urls = os.environ.get(URLS_VARIABLE, "")
    if not urls.strip():
        raise InvalidRequest(
            f"{URLS_VARIABLE} is not set; set it to the brokers, like http://127.0.0.1:8082,http://127.0.0.1:8083, "
            "or name them: Client(urls)"
        )
    return urls
