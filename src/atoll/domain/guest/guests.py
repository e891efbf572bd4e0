# SPDX-License-Identifier: Apache-2.0
"""All guests of one server: their zygote, places that are ready, and word of answers that took long.

Whatever takes long is waited for here beside everything else; nothing in ``machine`` knows of the loop.
"""

import asyncio
from collections.abc import Callable
from typing import Final, final

from atoll.base.errors import LinkError, UserError
from atoll.domain.guest.launch import UnconfinedError, Zygote
from atoll.domain.guest.machine import GuestPlace
from atoll.domain.limits import GUEST_START_S_MAX, GUEST_TURN_S
from atoll.domain.loading import decode_bundle

__all__ = ["Guests"]


@final
class Guests:
    """The guests.

    Attributes:
        zygote: What they are forked from; started with the first one.
    """

    def __init__(self) -> None:
        self.zygote: Final = Zygote()

    async def place(self, bundle: bytes) -> GuestPlace:
        """Return a place whose guest has loaded this code.

        Raises:
            UserError: A601, A603, A604 or A605, the code cannot be loaded; A613, there can be no guest here, or of it.
            CorruptError: It is no code.
        """
        code = decode_bundle(bundle)
        app = code.app
        place: GuestPlace | None = None
        try:
            await _until(self.zygote.is_ready)
            place = GuestPlace(self.zygote.fork, bundle, app)
            place.begin_loading()
            await _until(place.is_loaded)
        except TimeoutError as error:
            if place is not None:
                place.close()
            where = f"it takes more than {GUEST_START_S_MAX:g} s"
            fix = f"let {code.entry}.py do less while it is imported"
            raise UserError("A603", f"{app} cannot be loaded", where=where, fix=fix) from error
        except LinkError as error:
            is_made = place is not None and place.guest is not None
            if place is not None:
                place.close()
            if is_made and not isinstance(error, UnconfinedError):  # There can be guests here; this code ends them.
                fix = f"mend {code.entry}.py; to see why: python -X faulthandler {code.entry}.py"
                raise UserError(
                    "A603", f"{app} ends its process when it is loaded", where=str(error), fix=fix
                ) from error
            raise UserError(
                "A613", "no process can be made for handlers", where=str(error), fix="atoll run --level inline"
            ) from error
        except BaseException:
            if place is not None:
                place.close()
            raise
        return place

    @staticmethod
    def watch(place: GuestPlace, then: Callable[[], None]) -> None:
        """Call this once when a guest has answered, is dead, or has had its time; never after the place was closed."""
        loop = asyncio.get_running_loop()
        bells = [bell for bell in place.bells if bell >= 0]

        def let_go() -> None:
            place.let_go = None
            timer.cancel()
            for bell in bells:
                loop.remove_reader(bell)

        def over() -> None:
            let_go()
            then()

        timer = loop.call_later(place.left_s, over)
        for bell in bells:
            loop.add_reader(bell, over)
        place.let_go = let_go

    def rest(self) -> None:
        """Say that none is asked for now."""
        self.zygote.here.rest()

    def close(self) -> None:
        """End all of them. Twice is harmless."""
        self.zygote.close()


async def _until(is_so: Callable[[], bool]) -> None:
    """Wait until this holds.

    Raises:
        TimeoutError: It takes more than GUEST_START_S_MAX.
    """
    async with asyncio.timeout(GUEST_START_S_MAX):
        while not is_so():  # noqa: ASYNC110 - the other side is a process that was just made, and tells nobody.
            await asyncio.sleep(GUEST_TURN_S)
