"""The Bento: settings to services. Importing it starts nothing: see runners/bento/start.py for what happens before."""

from __future__ import annotations

import bentoml

from compat.immich.api import ImmichServer, create_app
from compat.immich_search.api import open_bar
from compat.immich_search.api import routes as bar_routes
from compat.mtphotos.api import MtPhotosServer, routes
from compat.upstream.routing import can_answer, open_upstreams
from runners.bento.connect import connect_runners, depends_on
from runners.bento.entry import entry_options, set_up_server, take_over
from runners.bento.remote import RemoteRunners
from runners.bento.services import runner_services
from runners.bento.start import prepare, read_catalog, read_settings, shares_process
from runners.bento.stop import CloseWhenRetired
from search.http.life import SearchLife
from search.http.routes import routes as search_routes
from search.http.state import SearchApi
from search.immich.exchange import ImmichHttp
from search.immich.visitor import Visitors
from serving.body import open_intake
from serving.late_response import EARLY_HEAD
from serving.url_key import UrlKey
from web.page import open_page
from web.routes import routes as page_routes

config = read_settings()
catalog = read_catalog(config)
services = runner_services(config, shared=shares_process(config))
immich = ImmichServer(catalog=catalog, settings=config, intake=open_intake(config))
mtphotos = MtPhotosServer(catalog=catalog, settings=config, intake=immich.intake)
search = SearchApi(catalog=catalog, settings=config, life=SearchLife(config))
visitors = Visitors(ImmichHttp(config.immich_url)) if config.immich_url else None
page = open_page(config, search, visitors)
bar = open_bar(config, search.life, visitors)
others = [*routes(mtphotos), *search_routes(search), *page_routes(page), *bar_routes(bar)]


@bentoml.service(**entry_options(config, head_after=EARLY_HEAD.after))
@bentoml.asgi_app(CloseWhenRetired(UrlKey(create_app(immich, others), config.url_key)), path="/")
@depends_on(services)
class ImmichBento:
    """Answers Immich's machine-learning protocol and mt-photos-ai's, and searches; computes nothing itself."""

    check = bentoml.on_deployment(lambda: prepare(config))

    @bentoml.on_startup
    async def begin(self) -> None:
        set_up_server(config, before_all=lambda app: UrlKey(app, config.url_key))
        immich.upstreams = open_upstreams(config)
        runners = await connect_runners(self, services, config)
        immich.runners = mtphotos.runners = search.runners = page.runners = runners
        search.life.start()
        page.start(immich.upstreams)
        take_over(config, catalog, ImmichBento.url)  # type: ignore[attr-defined] # a Service by now

    @bentoml.on_shutdown
    async def end(self) -> None:
        if immich.upstreams is not None:
            await immich.upstreams.close()
        if isinstance(immich.runners, RemoteRunners):
            await immich.runners.close()
        await page.close()
        if visitors is not None:
            await visitors.close()
        await search.life.close()

    async def __is_ready__(self) -> bool:
        runners = immich.runners
        return isinstance(runners, RemoteRunners) and can_answer(immich.upstreams, config) and await runners.are_ready()
