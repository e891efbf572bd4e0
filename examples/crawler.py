# SPDX-License-Identifier: Apache-2.0
"""A polite web crawler: robots.txt first, one page of a host at a time, a pause after each, and nothing is forgotten.

What is to be fetched, when, and what came of it is the environment's. Fetching is done by workers, ordinary programs
that may die at any moment: a page that a worker took and did not report is given to another one. Try it::

    atoll run examples/crawler.py --with delay_s=2.5
    atoll env call crawler Crawl url=http://example.org/ depth=2
    python examples/crawler.py work                 # As many as you like, on any node.
    atoll env show crawler
"""

import asyncio
import contextlib
import sys
from urllib.parse import urlsplit

import msgspec
from fetching import fetch
from msgspec.structs import replace

import atoll

PAGES_MAX, ATTEMPTS_MAX = 10_000, 4
LEASE_S = 60.0  # For so long a worker may take over one page.


class Crawl(atoll.Tuple):  # Fetch a page, and what of its host it leads to in so many steps. Gives a Page.
    url: str
    depth: int = 2


class Take(atoll.Tuple):  # What is there to fetch? Gives a Page, or a failure when nothing comes in time: idle.
    wait_s: float = 20.0


class Page(atoll.Tuple):
    url: str
    depth: int
    state: str = "waiting"  # Waiting, taken, fetched, forbidden or failed.
    attempt: int = 0
    status: int = 0
    title: str = ""


class Fetched(atoll.Tuple):  # A worker reports.
    url: str
    attempt: int
    status: int = 0  # 0: there was no answer.
    title: str = ""
    links: list[str] = []
    forbidden: list[str] = []  # Of a robots.txt: beginnings of paths.
    pause_s: float = 0.0


class Due(atoll.Tuple):  # A timer: a worker is bored, a page was not reported, or a host may be asked again.
    what: str
    which: str = ""
    number: int = 0


class Host(msgspec.Struct):  # One web server. It is busy while a worker asks it, and for a pause after that.
    pause_s: float
    waiting: list[str]
    forbidden: list[str] = []
    is_busy: bool = False


class Crawler(atoll.App):  # Only hosts that somebody has named with Crawl are visited.
    delay_s: float = 1.0
    pages: dict[str, Page] = {}
    hosts: dict[str, Host] = {}
    idle: dict[int, atoll.Asker] = {}

    @atoll.on(Crawl)
    def crawl(self, crawl: Crawl, ctx: atoll.Context) -> atoll.Tuple:
        parts = urlsplit(crawl.url)
        if parts.scheme not in {"http", "https"} or not parts.netloc:
            return atoll.Failure("url", f"{crawl.url} is no address of a web page")
        if parts.netloc not in self.hosts:
            self.hosts[parts.netloc] = Host(self.delay_s, [])
            self._add(f"{parts.scheme}://{parts.netloc}/robots.txt", 0)
        self._add(crawl.url, crawl.depth)
        self._serve(ctx)
        return self.pages.get(crawl.url) or atoll.Failure("full", f"{PAGES_MAX} pages are known")

    @atoll.on(Take)
    def take(self, take: Take, ctx: atoll.Context) -> None:
        if (asker := ctx.defer()) is not None:
            self.idle[ctx.event_number] = asker
            ctx.after(take.wait_s, Due("worker", "", ctx.event_number))
            self._serve(ctx)

    @atoll.on(Fetched)
    def fetched(self, fetched: Fetched, ctx: atoll.Context) -> None:
        page = self.pages.get(fetched.url)
        if page is None or (page.state, page.attempt) != ("taken", fetched.attempt):
            return  # It came so late that the page was given to another worker.
        host, pause_s, state = self.hosts[urlsplit(page.url).netloc], 0.0, "fetched"
        if 0 < fetched.status < 500 and fetched.status != 429:
            host.pause_s = max(host.pause_s, fetched.pause_s)
            host.forbidden += fetched.forbidden
            for link in fetched.links if page.depth else []:
                self._add(link, page.depth - 1)
        elif page.attempt < ATTEMPTS_MAX:
            pause_s, state = 2.0**page.attempt, "waiting"
            host.waiting.insert(0, page.url)  # It goes next: without robots.txt nothing else may.
        else:
            state = "failed"
            host.forbidden += ["/"] if page.url.endswith("/robots.txt") else []
        self.pages[page.url] = replace(page, state=state, status=fetched.status, title=fetched.title)
        ctx.after(max(pause_s, host.pause_s), Due("host", urlsplit(page.url).netloc))

    @atoll.on(Due)
    def due(self, due: Due, ctx: atoll.Context) -> None:
        if due.what == "page":
            self.fetched(Fetched(due.which, due.number), ctx)
        elif due.what == "host":
            self.hosts[due.which].is_busy = False
            self._serve(ctx)
        elif (asker := self.idle.pop(due.number, None)) is not None:
            ctx.reply(atoll.Failure("idle"), to=asker)

    def _add(self, url: str, depth: int) -> None:
        url = url.partition("#")[0]
        host = self.hosts.get(urlsplit(url).netloc)
        if host is not None and url not in self.pages and len(self.pages) < PAGES_MAX:
            self.pages[url] = Page(url, depth)
            host.waiting.append(url)

    def _serve(self, ctx: atoll.Context) -> None:
        for host in self.hosts.values():
            while self.idle and host.waiting and not host.is_busy:
                page = self.pages[host.waiting.pop(0)]
                if (urlsplit(page.url).path or "/").startswith(tuple(host.forbidden)):
                    self.pages[page.url] = replace(page, state="forbidden")
                    continue
                host.is_busy = True
                page = self.pages[page.url] = replace(page, state="taken", attempt=page.attempt + 1)
                ctx.after(LEASE_S, Due("page", page.url, page.attempt))
                ctx.reply(page, to=self.idle.pop(next(iter(self.idle))))


async def work() -> None:
    async with atoll.join() as group:
        crawler = await group.environment("crawler")
        while True:
            try:
                page = await crawler.call(Take(), Page)
            except atoll.CallError:  # Nothing to do, or out of reach.
                await asyncio.sleep(1)
                continue
            report = Fetched(page.url, page.attempt)
            with contextlib.suppress(OSError, EOFError, ValueError, TimeoutError):
                async with asyncio.timeout(LEASE_S / 2):
                    got = await fetch(page.url)
                rules, pause_s = got.rules if page.url.endswith("/robots.txt") else ([], 0.0)
                report = Fetched(page.url, page.attempt, got.status, got.title, got.links, rules, pause_s)
            print(page.url, report.status, report.title, flush=True)
            await crawler.send(report)


if __name__ == "__main__":
    asyncio.run(work() if sys.argv[1:] == ["work"] else sys.exit(__doc__))
