"""The Bento: settings to services. Importing it starts nothing: see runners/bento/start.py for what happens before."""

from __future__ import annotations

from contextlib import AsyncExitStack

import bentoml

from compat.gateway import open_gateway
from runners.bento.connect import connect_runners, depends_on
from runners.bento.empty_answers import AlwaysAnswered
from runners.bento.entry import entry_options, set_up_server, take_over
from runners.bento.remote import RemoteRunners
from runners.bento.services import runner_services
from runners.bento.start import prepare, read_catalog, read_settings, shares_process
from runners.bento.stop import CloseWhenRetired
from runners.bento.stuck import end_if_stuck
from serving.late_response import EARLY_HEAD
from serving.url_key import UrlKey
from web.page import open_page
from web.routes import routes as page_routes

config = read_settings()
catalog = read_catalog(config)
services = runner_services(config, shared=shares_process(config))
gateway = open_gateway(config, catalog)
page = open_page(config, gateway.search, gateway.visitors)
app = UrlKey(gateway.app(page_routes(page)), config.url_key)
closing = AsyncExitStack()


@bentoml.service(**entry_options(config, head_after=EARLY_HEAD.after))
@bentoml.asgi_app(CloseWhenRetired(AlwaysAnswered(app)), path="/")
@depends_on(services)
class ImmichBento:
    """Answers Immich's machine-learning protocol and mt-photos-ai's, and searches; computes nothing itself."""

    check = bentoml.on_deployment(lambda: prepare(config))
    runners: RemoteRunners | None = None

    @bentoml.on_startup
    async def begin(self) -> None:
        closing.callback(end_if_stuck(config.stuck_after))
        set_up_server(config, before_all=lambda inner: UrlKey(inner, config.url_key))
        self.runners = await connect_runners(self, services, config)
        closing.push_async_callback(self.runners.close)
        gateway.start(self.runners)
        closing.push_async_callback(gateway.close)
        page.start(self.runners, gateway.upstreams)
        closing.push_async_callback(page.close)
        take_over(config, catalog, ImmichBento.url)  # type: ignore[attr-defined] # a Service by now

    @bentoml.on_shutdown
    async def end(self) -> None:
        await closing.aclose()

    async def __is_ready__(self) -> bool:
        return self.runners is not None and gateway.can_answer and await self.runners.are_ready()
