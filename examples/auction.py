# SPDX-License-Identifier: Apache-2.0
"""An auction house: lots that close by themselves, bids, a longer end when somebody bids late, and notices to bidders.

Try it::

    atoll run examples/auction.py
    python examples/auction.py offer chair 600
    python examples/auction.py bid chair ann 20     # Stays, and tells when ann is outbid or the chair is sold.
    atoll env call auction Look lot=chair
"""

import asyncio
import sys
from datetime import datetime, timedelta

from msgspec.structs import replace

import atoll

LATE_S = 30.0  # Whoever bids this late gives the others as long to answer: nobody wins by having the fastest clock.
BIDS_KEPT = 1_000  # Of each lot. State stays in memory and goes with each move, so whatever grows has a bound.


class Offer(atoll.Tuple):  # Put a lot up. Gives a Lot, or a failure: exists.
    lot: str
    open_s: float
    reserve: int = 1


class Bid(atoll.Tuple):  # Offer money. Gives a Lot, or a failure: unknown, over or low.
    lot: str
    who: str
    amount: int


class Look(atoll.Tuple):  # Ask how a lot stands. Gives a Lot, or a failure: unknown.
    lot: str


class Lot(atoll.Tuple):  # How a lot stands; who has bid how much, the latest last.
    lot: str
    closes: datetime
    wanted: int
    who: str = ""
    is_open: bool = True
    history: tuple[tuple[str, int], ...] = ()


class Outbid(atoll.Tuple):  # Told to whoever had the best bid until now.
    lot: str
    who: str
    amount: int


class Sold(atoll.Tuple):  # Told to everybody who has bid, when the lot closes.
    lot: Lot


class Close(atoll.Tuple):  # A timer: the time of a lot is over.
    lot: str


class Auction(atoll.App):
    """The house. These fields are its state: they survive a crash and a move, and `atoll env show` prints them."""

    lots: dict[str, Lot] = {}
    timers: dict[str, int] = {}
    bidders: dict[str, dict[str, atoll.Ref]] = {}

    @atoll.on(Offer)
    def offer(self, offer: Offer, ctx: atoll.Context) -> atoll.Tuple:
        if offer.lot in self.lots:
            return atoll.Failure("exists", f"{offer.lot} is offered already")
        self.timers[offer.lot] = ctx.after(offer.open_s, Close(offer.lot))
        self.bidders[offer.lot] = {}
        lot = self.lots[offer.lot] = Lot(offer.lot, ctx.now() + timedelta(seconds=offer.open_s), offer.reserve)
        return lot

    @atoll.on(Bid)
    def bid(self, bid: Bid, ctx: atoll.Context) -> atoll.Tuple:
        lot = self.lots.get(bid.lot)
        if lot is None or not lot.is_open:
            return atoll.Failure("unknown" if lot is None else "over", bid.lot)
        if bid.amount < lot.wanted:
            return atoll.Failure("low", f"{lot.wanted} is wanted")
        if lot.who and lot.who != bid.who:
            self._tell(lot, lot.who, Outbid(bid.lot, bid.who, bid.amount), ctx)
        self.bidders[bid.lot][bid.who] = ctx.sender or ctx.me
        closes, late = lot.closes, ctx.now() + timedelta(seconds=LATE_S)
        if closes < late:
            ctx.cancel(self.timers[bid.lot])
            closes, self.timers[bid.lot] = late, ctx.after(LATE_S, Close(bid.lot))
        history = (*lot.history[1 - BIDS_KEPT :], (bid.who, bid.amount))
        lot = replace(lot, closes=closes, wanted=bid.amount + 1, who=bid.who, history=history)
        self.lots[bid.lot] = lot
        return lot

    @atoll.on(Close)
    def close(self, close: Close, ctx: atoll.Context) -> None:
        lot = self.lots[close.lot] = replace(self.lots[close.lot], is_open=False)
        ctx.log(f"{close.lot} goes to {lot.who or 'nobody'}")
        for who in self.bidders[close.lot]:
            self._tell(lot, who, Sold(lot), ctx)

    @atoll.on(Look)
    def look(self, look: Look, _: atoll.Context) -> atoll.Tuple:
        return self.lots.get(look.lot) or atoll.Failure("unknown", look.lot)

    def _tell(self, lot: Lot, who: str, news: atoll.Tuple, ctx: atoll.Context) -> None:
        try:
            ctx.send(self.bidders[lot.lot][who], news)
        except atoll.QueueFull:  # Somebody who was away for 4096 of them hears no more; the sale goes on.
            ctx.log(f"{who} is not told: {news}")


async def main(words: list[str]) -> None:
    """Say one thing to the house; after a bid, stay and print what it tells."""
    async with atoll.join() as group:
        auction = await group.environment("auction")
        match words:
            case ["offer", lot, open_s]:
                print(await auction.call(Offer(lot, float(open_s)), Lot))
            case ["bid", lot, who, amount]:
                print(await auction.call(Bid(lot, who, int(amount)), Lot))
                async for news in auction.events(Outbid, Sold):
                    print(news)
            case _:
                sys.exit(__doc__)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
