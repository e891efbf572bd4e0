# SPDX-License-Identifier: Apache-2.0
"""The crawler: robots.txt, one page of a host at a time, pauses, retries, leases; and what its workers read."""

import pytest
from crawler import LEASE_S, Crawl, Crawler, Fetched, Page, Take
from fetching import Answer

import atoll
from atoll.env.stage import Actor, Client, Stage

SITE = "http://example.org"
ROBOTS = f"{SITE}/robots.txt"


def fetched(worker: Client, crawler: Actor[Crawler], status: int = 200, **found: object) -> str:
    """Do as a worker does; return which page it was."""
    page = worker.call(crawler, Take(), Page)
    worker.send(crawler, Fetched(page.url, page.attempt, status, **found))  # type: ignore[arg-type] # Each test its own.
    return page.url


def test_it_asks_for_robots_first_and_goes_as_deep_as_it_was_told() -> None:
    with Stage() as stage:
        crawler, worker = stage.run(Crawler, delay_s=2.0), stage.client()
        assert worker.call(crawler, Crawl(f"{SITE}/", depth=1), Page).state == "waiting"
        assert fetched(worker, crawler, forbidden=["/private"], pause_s=5.0) == ROBOTS
        links = [f"{SITE}/a#part", f"{SITE}/a", f"{SITE}/private/b", "http://elsewhere.example/"]
        began = stage.now()
        assert fetched(worker, crawler, title="Home", links=links) == f"{SITE}/"
        assert (stage.now() - began).total_seconds() == 5
        assert fetched(worker, crawler, links=[f"{SITE}/deeper"]) == f"{SITE}/a"
        assert worker.call(crawler, Take()) == atoll.Failure("idle")
        states = {url: page.state for url, page in crawler.state.pages.items()}
        assert states == {
            ROBOTS: "fetched",
            f"{SITE}/": "fetched",
            f"{SITE}/a": "fetched",
            f"{SITE}/private/b": "forbidden",
        }
        assert worker.call(crawler, Crawl(f"{SITE}/"), Page).title == "Home"


def test_hosts_are_asked_at_the_same_time_but_each_one_slowly() -> None:
    with Stage() as stage:
        crawler, workers = stage.run(Crawler, delay_s=10.0), [stage.client() for _ in range(3)]
        asked = [worker.ask(crawler, Take(60)) for worker in workers]
        for host in ("a", "b"):
            workers[0].call(crawler, Crawl(f"http://{host}.example/"), Page)
        taken = [worker.answer(number) for worker, number in zip(workers, asked, strict=True)]
        assert [page.url for page in taken if isinstance(page, Page)] == [
            "http://a.example/robots.txt",
            "http://b.example/robots.txt",
        ]
        stage.advance(9)
        workers[0].send(crawler, Fetched("http://a.example/robots.txt", 1, 404))
        stage.advance(9)
        assert workers[2].answer(asked[2]) is None
        stage.advance(1)
        page = workers[2].answer(asked[2])
        assert isinstance(page, Page)
        assert page.url == "http://a.example/"


def test_what_a_dead_worker_took_is_given_to_another() -> None:
    with Stage() as stage:
        crawler, dead, worker = stage.run(Crawler), stage.client(), stage.client()
        worker.call(crawler, Crawl(f"{SITE}/"), Page)
        dead.call(crawler, Take(), Page)
        stage.advance(LEASE_S / 2)
        crawler.crash()
        again = worker.call(crawler, Take(60), Page, timeout_s=60)
        assert (again.url, again.attempt) == (ROBOTS, 2)
        dead.send(crawler, Fetched(ROBOTS, 1, 200))
        worker.send(crawler, Fetched(f"{SITE}/nowhere", 1, 200))
        assert crawler.state.pages[ROBOTS].state == "taken"


def test_a_failure_is_tried_again_later_and_later_and_then_given_up() -> None:
    with Stage() as stage:
        crawler, worker = stage.run(Crawler), stage.client()
        worker.call(crawler, Crawl(f"{SITE}/"), Page)
        waited: list[float] = []
        for status in (503, 0, 429, 500):
            began = stage.now()
            assert fetched(worker, crawler, status) == ROBOTS
            waited.append((stage.now() - began).total_seconds())
        assert waited == [0, 2, 4, 8]
        assert worker.call(crawler, Take(60), timeout_s=90) == atoll.Failure("idle")
        pages = crawler.state.pages
        assert (pages[ROBOTS].state, pages[f"{SITE}/"].state) == ("failed", "forbidden")


def test_a_page_that_fails_is_only_that() -> None:
    with Stage() as stage:
        crawler, worker = stage.run(Crawler), stage.client()
        worker.call(crawler, Crawl(f"{SITE}/"), Page)
        fetched(worker, crawler, 404)
        for _ in range(4):
            fetched(worker, crawler, 500)
        assert crawler.state.pages[f"{SITE}/"].state == "failed"
        assert worker.call(crawler, Crawl(f"{SITE}/other"), Page).state == "waiting"
        assert fetched(worker, crawler) == f"{SITE}/other"


def test_foolish_addresses_and_too_many_pages_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with Stage() as stage:
        crawler, client = stage.run(Crawler), stage.client()
        for url in ("ftp://example.org/", "example.org"):
            assert client.call(crawler, Crawl(url)) == atoll.Failure("url", f"{url} is no address of a web page")
        monkeypatch.setattr("crawler.PAGES_MAX", 2)
        client.call(crawler, Crawl(f"{SITE}/"), Page)
        assert client.call(crawler, Crawl(f"{SITE}/b")) == atoll.Failure("full", "2 pages are known")
        client.send(crawler, Take())
        assert crawler.state.idle == {}


def test_a_page_is_read() -> None:
    html = "<html><TITLE> Home\n</TITLE><a class=x href='/a'>A</a> <a href=b>B</a></html>"
    answer = Answer("http://h.example/d/", 301, "HTTP/1.1 301 Moved\r\nLocation: /new\r\n", html)
    assert answer.title == "Home"
    assert answer.links == ["http://h.example/new", "http://h.example/a", "http://h.example/d/b"]
    assert Answer("http://h.example/", 200, "", "nothing").title == ""


def test_robots_are_read() -> None:
    ours = "User-agent: *\nDisallow: /a\nDisallow:\nDisallow: /b # why\nCrawl-delay: 1.5\n"
    text = f"User-agent: other\nDisallow: /\n\n{ours}"
    answer = Answer(ROBOTS, 200, "", text)
    assert answer.rules == (["/a", "/b"], 1.5)
    assert Answer(ROBOTS, 404, "", text).rules == ([], 0.0)
