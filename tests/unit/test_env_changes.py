# SPDX-License-Identifier: Apache-2.0
"""Tuples that every program knows: they have names of their own, and queries inside them are looked at on arrival."""

import msgspec
import pytest

from atoll.env.app import App, program_of
from atoll.env.changes import BUILT_IN, CHANGES, Put, Read, Renew, Request, Take, Unwatch, Watch
from atoll.env.limits import SPACE_READ_MAX
from atoll.env.query import field, where
from atoll.env.tuples import Tuple


class Mine(App):
    pass


class OwnTake(Tuple, frozen=True, tag="Take"):
    how_many: int


def test_each_has_a_name_of_its_own() -> None:
    tags = [str(kind.__struct_config__.tag) for kind in BUILT_IN]
    assert len(set(tags)) == len(tags)
    assert set(BUILT_IN) >= CHANGES
    assert Request not in BUILT_IN  # It is made here for an interceptor, and comes from nobody.
    requests = (Put, Read, Take, Watch, Unwatch, Renew)
    assert all(str(kind.__struct_config__.tag) == f"atoll.{kind.__name__}" for kind in requests)


def test_a_program_may_have_a_tuple_that_is_called_like_a_request() -> None:
    assert program_of(Mine, known=(OwnTake,)).types["Take"] is OwnTake


def test_a_query_goes_through_a_request() -> None:
    decode = program_of(Mine).event.decode
    asked = Read(where("Job", field("size") > 3), 7)
    assert decode(msgspec.msgpack.encode(asked)) == asked
    assert decode(msgspec.msgpack.encode(Take(where("Job")))).limit == 1
    assert decode(msgspec.msgpack.encode(Read(where("Job")))).limit == SPACE_READ_MAX
    with pytest.raises(msgspec.ValidationError):
        decode(msgspec.msgpack.encode({"is": "atoll.Read", "query": [2, ["a"], "~", 1]}))


def test_what_is_put_arrives_as_plain_data() -> None:
    decode = program_of(Mine).event.decode
    assert decode(msgspec.msgpack.encode(Put({"is": "Job", "size": 3}, 5))) == Put({"is": "Job", "size": 3}, 5.0)
