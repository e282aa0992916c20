"""This process's log level: shown, and set until it ends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from aiohttp import web

from minilog.broker.http.exchange import Exchange, Handler, HttpContext, json_answer
from minilog.server.log_level import changed_level, shown_level


async def log_level(context: HttpContext, exchange: Exchange) -> web.Response:
    return json_answer(shown_level(context.runtime.settings.log_level))


async def set_log_level(context: HttpContext, exchange: Exchange) -> web.Response:
    exchange.media_in()
    body = await exchange.body.read()
    asked_by = exchange.request.remote or "an unknown address"
    return json_answer(changed_level(body, context.runtime.settings.log_level, asked_by))


HANDLERS: Final[Mapping[str, Handler]] = {"log_level": log_level, "set_log_level": set_log_level}
