# SPDX-License-Identifier: Apache-2.0
"""What the crawler's workers need of HTTP and HTML, on nothing but the standard library."""

import asyncio
import re
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

BODY_BYTES_MAX = 1_000_000


@dataclass(frozen=True)
class Answer:
    """What a web server answers."""

    url: str
    status: int
    head: str
    body: str

    @property
    def title(self) -> str:
        """The page's title."""
        found = re.search(r"(?is)<title>(.*?)</title>", self.body)
        return found[1].strip() if found else ""

    @property
    def links(self) -> list[str]:
        """Where it leads to."""
        found = re.findall(r"(?im)^location:\s*(\S+)", self.head)
        found += re.findall(r"""(?i)<a\s[^>]*?href=["']?([^"'\s>]+)""", self.body)
        return [urljoin(self.url, link) for link in found]

    @property
    def rules(self) -> tuple[list[str], float]:
        """Of a robots.txt: which paths are forbidden to everybody, and the pause that it asks for, in seconds."""
        group = r"(?ims)^user-agent:\s*\*\s*$(.*?)(?=^user-agent:|\Z)"
        ours = re.search(group, self.body if self.status == 200 else "")
        text = ours[1] if ours else ""
        pause = re.search(r"(?im)^crawl-delay:\s*([0-9.]+)", text)
        return re.findall(r"(?im)^disallow:[ \t]*(\S+)", text), float(pause[1]) if pause else 0.0


async def fetch(url: str) -> Answer:
    """Ask for a page.

    Raises:
        OSError: There is no answer.
        EOFError: It ends early.
        ValueError: It is no HTTP.
    """
    parts = urlsplit(url)
    ssl = True if parts.scheme == "https" else None
    port = parts.port or (443 if ssl else 80)
    dial = asyncio.open_connection(parts.hostname, port, ssl=ssl)  # atoll: allow network, only workers come here
    reader, writer = await dial
    try:
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        writer.write(f"GET {path} HTTP/1.0\r\nHost: {parts.netloc}\r\nUser-Agent: atoll-example\r\n\r\n".encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        body = b""
        while len(body) < BODY_BYTES_MAX and (more := await reader.read(65_536)):
            body += more
    finally:
        writer.close()
    return Answer(url, int(head.split(maxsplit=2)[1]), head, body.decode(errors="replace"))
