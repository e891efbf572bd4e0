# SPDX-License-Identifier: Apache-2.0
"""Each request gets one answer; blocks share a write; what was asked before is done before; a failure is an answer."""

import os
import resource
from hashlib import sha256
from pathlib import Path

import pytest

from atoll.base.errors import StorageError
from atoll.domain.limits import BATCH_BYTES_MAX, SEGMENTS_OPEN_MAX
from atoll.domain.recorder import store as store_module
from atoll.domain.recorder.heads import HeadFiles
from atoll.domain.recorder.messages import (
    Answer,
    Append,
    Appended,
    Blocks,
    Certify,
    Code,
    Content,
    Create,
    Cut,
    Done,
    Forget,
    Greeting,
    Keep,
    KeepCode,
    KeepHead,
    KeepSnapshot,
    Kept,
    KeptHead,
    List,
    Listed,
    Promise,
    Read,
    ReadCode,
    ReadSnapshot,
    Refused,
    Request,
    Restart,
    Retain,
    Retained,
    Snapshot,
    Starting,
)
from atoll.domain.recorder.snapshots import Signed, checks
from atoll.domain.recorder.store import Store
from atoll.env.chain import GENESIS, Block, Sealed, Verifier, certificate_payload, link_of
from tests.unit.recorder_world import ENVIRONMENT, NODE, OTHER, block_after, key_in, node_key, stored, writing

CODE = b"code"
DIGEST = sha256(CODE).digest()


def store_in(state: Path, *, certified: bool = True) -> Store[str]:
    return Store(state, key_in(state, certified=certified))


def ask(store: Store[str], *requests: Request) -> list[Answer]:
    answers = store.serve([("me", request) for request in requests])
    assert all(asker == "me" for asker, _ in answers)
    return [answer for _, answer in answers]


def only(store: Store[str], request: Request) -> Answer:
    (answer,) = ask(store, request)
    return answer


def code_of(answer: Answer) -> Code:
    assert isinstance(answer, Refused)
    return answer.code


def plain(number: int, body: bytes = b"\0") -> Block:
    return Block(number, 1, number, 1, body)


@pytest.fixture
def store(tmp_path: Path) -> Store[str]:
    store = store_in(tmp_path)
    assert only(store, Create(1, ENVIRONMENT, "shop")) == Done(1)
    return store


def test_an_environment_lives_through_all_requests(store: Store[str], tmp_path: Path) -> None:
    first, at = OTHER.seal(GENESIS, block_after(GENESIS, writing(b"state")))
    assert only(store, Keep(2, ENVIRONMENT, OTHER.sealer, first.block, first.seal)) == Kept(2, 1)
    own = block_after(at)
    appended = only(store, Append(3, ENVIRONMENT, own))
    assert isinstance(appended, Appended)
    assert only(store, KeepSnapshot(4, ENVIRONMENT, 1, stored(b"state"))) == Done(4)
    snapshot = only(store, ReadSnapshot(5, ENVIRONMENT, 1))
    assert isinstance(snapshot, Snapshot)
    assert (snapshot.id, snapshot.at, snapshot.content) == (5, at, stored(b"state"))
    assert snapshot.sealer is not None
    assert snapshot.sealer == key_in(tmp_path).sealer
    signed = Signed(snapshot.head, snapshot.content, snapshot.sealer, snapshot.signature)
    assert checks(ENVIRONMENT, 1, signed)
    assert only(store, ReadSnapshot(5, ENVIRONMENT, 9, upto=True)) == snapshot
    sealer = key_in(tmp_path).sealer
    assert only(store, Read(6, ENVIRONMENT, 1)) == Blocks(6, (OTHER.sealer, first, sealer, Sealed(own, appended.seal)))
    assert only(store, Promise(7, ENVIRONMENT, 2, NODE)) == Done(7)
    listed = only(store_in(tmp_path), List(8))
    assert isinstance(listed, Listed)
    (recorded,) = listed.environments
    assert (recorded.name, recorded.at.number, recorded.at.head) == ("shop", 2, appended.seal.head)
    assert (recorded.promised_epoch, recorded.promised_to, recorded.snapshots) == (2, NODE, (1,))
    assert only(store, Cut(9, ENVIRONMENT, 2)) == Done(9)
    assert only(store, Read(10, ENVIRONMENT, 2)) == Blocks(10, ())
    assert only(store, Retain(11, ENVIRONMENT, 2)) == Retained(11, 1)
    assert only(store, Forget(12, ENVIRONMENT)) == Done(12)
    assert only(store, List(13)) == Listed(13, (), (ENVIRONMENT,))
    assert only(store_in(tmp_path), List(14)) == Listed(14, (), (ENVIRONMENT,))
    assert code_of(only(store, Create(15, ENVIRONMENT, "shop"))) is Code.EXISTS
    assert [one.name for one in (tmp_path / "ended").iterdir()] == [f"{ENVIRONMENT.hex()}-1"]


def test_what_was_never_written_to_leaves_nothing_and_may_begin_again(store: Store[str], tmp_path: Path) -> None:
    assert only(store, Promise(2, ENVIRONMENT, 2, NODE)) == Done(2)
    assert only(store, Forget(3, ENVIRONMENT, ended=False)) == Done(3)
    assert only(store, List(4)) == Listed(4, ())
    assert not list((tmp_path / "ended").iterdir())
    assert not list((tmp_path / "envs").iterdir())
    assert only(store, Create(5, ENVIRONMENT, "shop")) == Done(5)


def test_what_was_written_to_is_not_deleted_nor_what_was_put_aside_of_it(store: Store[str]) -> None:
    ask(store, Append(2, ENVIRONMENT, plain(1)))
    assert code_of(only(store, Forget(3, ENVIRONMENT, ended=False))) is Code.EXISTS
    assert only(store, Cut(4, ENVIRONMENT, 1)) == Done(4)
    assert code_of(only(store, Forget(5, ENVIRONMENT, ended=False))) is Code.EXISTS


def test_of_what_has_ended_the_newest_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "ENDED_MAX", 2)
    store = store_in(tmp_path)
    names = [bytes([number]) * 16 for number in (3, 1, 2)]
    for number, name in enumerate(names):
        ask(store, Create(10 + number, name, "shop"), Forget(20 + number, name))
        os.utime(tmp_path / "ended" / f"{name.hex()}-1", ns=(number, number))
    assert only(store, List(30)) == Listed(30, (), tuple(names[1:]))
    assert only(store_in(tmp_path), List(31)) == Listed(31, (), tuple(names[1:]))


def test_blocks_share_a_write_and_what_is_asked_after_them_sees_them(store: Store[str], tmp_path: Path) -> None:
    other = b"o" * 16
    answers = ask(
        store,
        Create(2, other, "other"),
        Append(3, ENVIRONMENT, plain(1)),
        Append(4, other, plain(1)),
        Append(5, ENVIRONMENT, plain(2)),
        Read(6, ENVIRONMENT, 2),
        Append(7, other, plain(2)),
    )
    assert [answer.id for answer in answers if not isinstance(answer, Starting | Greeting)] == [2, 3, 5, 4, 6, 7]
    read = answers[4]
    assert isinstance(read, Blocks)
    assert len(read.items) == 2
    listed = only(store_in(tmp_path), List(1))
    assert isinstance(listed, Listed)
    assert [recorded.at.number for recorded in listed.environments] == [2, 2]


def test_a_block_that_does_not_follow_is_refused_and_the_others_are_not(store: Store[str]) -> None:
    answers = ask(store, *(Append(number, ENVIRONMENT, plain(number)) for number in (1, 3, 2)))
    by_id = {answer.id: answer for answer in answers if isinstance(answer, Appended | Refused)}
    assert isinstance(by_id[1], Appended)
    assert isinstance(by_id[2], Appended)
    assert code_of(by_id[3]) is Code.NUMBER


def test_more_than_a_batch_is_written_in_several(store: Store[str], tmp_path: Path) -> None:
    body = b"\0" + bytes(BATCH_BYTES_MAX // 4)
    answers = ask(store, *(Append(number, ENVIRONMENT, plain(number, body)) for number in range(1, 7)))
    assert [type(answer) for answer in answers] == [Appended] * 6
    assert all(path.stat().st_size < 1 << 26 for path in (tmp_path / "envs" / ENVIRONMENT.hex()).glob("*.atb"))


def test_a_full_disk_refuses_each_block_of_the_write(store: Store[str], tmp_path: Path) -> None:
    path = tmp_path / "envs" / ENVIRONMENT.hex() / f"{1:08d}.atb"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 100, before[1]))
    try:
        answers = ask(store, Append(2, ENVIRONMENT, plain(1)), Append(3, ENVIRONMENT, plain(2)))
        code = code_of(only(store, KeepCode(4, sha256(bytes(9999)).digest(), bytes(9999))))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [code_of(answer) for answer in answers] == [Code.FULL, Code.FULL]
    assert code is Code.FULL
    assert isinstance(only(store, Append(5, ENVIRONMENT, plain(1))), Appended)


def test_what_is_not_there_is_unknown(store: Store[str]) -> None:
    other = b"o" * 16
    sealed, _ = OTHER.seal(GENESIS, block_after(GENESIS))
    for request in (
        Append(2, other, plain(1)),
        Keep(2, other, OTHER.sealer, sealed.block, sealed.seal),
        Cut(2, other, 1),
        Promise(2, other, 1, NODE),
        KeepSnapshot(2, other, 0, b""),
        ReadSnapshot(2, other, 0),
        ReadSnapshot(2, ENVIRONMENT, 0),
        Read(2, other, 1),
        Retain(2, other, 1),
        Forget(2, other),
        ReadCode(2, DIGEST),
    ):
        assert code_of(only(store, request)) is Code.UNKNOWN
    assert code_of(only(store, Create(2, ENVIRONMENT, "again"))) is Code.EXISTS


def test_code_is_kept_under_its_digest(store: Store[str], tmp_path: Path) -> None:
    assert code_of(only(store, KeepCode(2, DIGEST, b"other"))) is Code.DIGEST
    assert ask(store, KeepCode(3, DIGEST, CODE), KeepCode(4, DIGEST, CODE)) == [Done(3), Done(4)]
    assert only(store_in(tmp_path), ReadCode(5, DIGEST)) == Content(5, CODE)
    path = tmp_path / "code" / f"{DIGEST.hex()}.atc"
    path.write_bytes(b"other")
    assert code_of(only(store, ReadCode(6, DIGEST))) is Code.CORRUPT
    path.unlink()
    path.mkdir()
    assert code_of(only(store, ReadCode(7, DIGEST))) is Code.IO


def test_heads_of_other_nodes_are_kept(store: Store[str], tmp_path: Path) -> None:
    kept = KeptHead(ENVIRONMENT, link_of(b"h" * 32, block_after(GENESIS)), b"s" * 64)
    assert only(store, KeepHead(2, NODE, kept)) == Done(2)
    assert HeadFiles(tmp_path / "heads").read(NODE) == (kept,)


def test_numbers_are_bounded(store: Store[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "RECORDED_MAX", 1)
    monkeypatch.setattr(store_module, "CODE_FILES_MAX", 0)
    assert code_of(only(store, Create(2, b"o" * 16, "other"))) is Code.LIMIT
    assert code_of(only(store, KeepCode(3, DIGEST, CODE))) is Code.LIMIT


def test_few_files_stay_open(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    ids = [number.to_bytes(16, "big") for number in range(SEGMENTS_OPEN_MAX + 3)]
    before = len(list(Path("/proc/self/fd").iterdir()))
    for environment in ids:
        ask(store, Create(1, environment, "one"), Append(2, environment, plain(1)))
    assert len(list(Path("/proc/self/fd").iterdir())) == before + SEGMENTS_OPEN_MAX
    assert isinstance(only(store, Append(2, ids[0], plain(2))), Appended)
    store.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_recorder_seals_nothing_before_it_is_certified(tmp_path: Path) -> None:
    store = store_in(tmp_path, certified=False)
    assert code_of(only(store, Create(1, ENVIRONMENT, "shop"))) is Code.SIGNATURE
    signing = node_key()
    public = key_in(tmp_path, certified=False).public
    certificate = signing.sign(certificate_payload(NODE, public))
    certify = Certify(2, NODE, signing.public_key().public_bytes_raw(), certificate)
    (tmp_path / "recorder.cert").mkdir()
    assert code_of(only(store, certify)) is Code.IO
    (tmp_path / "recorder.cert").rmdir()
    assert only(store, certify) == Done(2)
    assert only(store, Create(3, ENVIRONMENT, "shop")) == Done(3)
    assert code_of(only(store, Certify(4, NODE, bytes(32), certificate))) is Code.SIGNATURE


def test_a_damaged_environment_is_listed_and_refused_and_can_be_put_aside(store: Store[str], tmp_path: Path) -> None:
    ask(store, Append(2, ENVIRONMENT, plain(1)), Create(3, b"o" * 16, "other"))
    path = tmp_path / "envs" / ENVIRONMENT.hex() / f"{1:08d}.atb"
    content = path.read_bytes()
    path.write_bytes(content[:-9] + b"x" + content[-8:])
    again = store_in(tmp_path)
    listed = only(again, List(4))
    assert isinstance(listed, Listed)
    assert [bool(recorded.damage) for recorded in listed.environments] == [True, False]
    assert [code_of(answer) for answer in ask(again, Append(5, ENVIRONMENT, plain(2)), Read(6, ENVIRONMENT, 1))] == [
        Code.CORRUPT,
        Code.CORRUPT,
    ]
    assert isinstance(only(again, Append(7, b"o" * 16, plain(1))), Appended)
    assert only(again, Forget(8, ENVIRONMENT)) == Done(8)


def test_what_a_crash_left_of_a_new_environment_is_removed(store: Store[str], tmp_path: Path) -> None:
    half = tmp_path / "envs" / f".{'00' * 16}.new"
    half.mkdir()
    (half / "file").touch()
    (tmp_path / "envs" / "something else").mkdir()
    listed = only(store_in(tmp_path), List(1))
    assert isinstance(listed, Listed)
    assert len(listed.environments) == 1
    assert not half.exists()


def test_a_directory_that_cannot_be_moved_or_read_is_said(store: Store[str], tmp_path: Path) -> None:
    (tmp_path / "ended").rmdir()
    (tmp_path / "ended").touch()
    assert code_of(only(store, Forget(2, ENVIRONMENT))) is Code.IO
    assert isinstance(only(store, Append(3, ENVIRONMENT, plain(1))), Appended)
    (tmp_path / "ended").unlink()
    half = tmp_path / "envs" / ".half"
    half.touch()
    with pytest.raises(StorageError):
        store_in(tmp_path)


def test_what_is_read_checks(store: Store[str]) -> None:
    ask(store, *(Append(number, ENVIRONMENT, plain(number)) for number in range(1, 50)))
    read = only(store, Read(1, ENVIRONMENT, 1))
    assert isinstance(read, Blocks)
    verifier = Verifier(ENVIRONMENT, position=GENESIS)
    for item in read.items:
        verifier.feed(item)
    assert verifier.position is not None
    assert verifier.position.number == 49


def test_a_journal_begins_anew_between_two_others(store: Store[str], tmp_path: Path) -> None:
    answers = ask(
        store,
        Append(2, ENVIRONMENT, plain(1)),
        Promise(3, ENVIRONMENT, 4, b"other-node"),
        Restart(4, ENVIRONMENT, floor=(1, 1)),
        Append(5, ENVIRONMENT, Block(1, 5, 1, 1, b"\0")),
        Restart(6, b"e" * 16),
    )
    assert [type(answer) for answer in answers] == [Appended, Done, Done, Appended, Refused]
    assert code_of(answers[4]) is Code.UNKNOWN
    listed = only(Store[str](tmp_path, key_in(tmp_path)), List(7))
    assert isinstance(listed, Listed)
    (recorded,) = listed.environments
    assert (recorded.at.number, recorded.at.epoch, recorded.promised_epoch, recorded.floor) == (1, 5, 4, (1, 1))


def test_what_is_refused_is_answered_in_its_turn(store: Store[str]) -> None:
    answers = ask(
        store, Append(2, ENVIRONMENT, plain(1)), Append(3, ENVIRONMENT, plain(5)), Append(4, ENVIRONMENT, plain(2))
    )
    assert [(type(answer), getattr(answer, "id", 0)) for answer in answers] == [
        (Appended, 2),
        (Refused, 3),
        (Appended, 4),
    ]


def test_a_start_tells_of_each_journal_that_was_checked(tmp_path: Path) -> None:
    first = store_in(tmp_path)
    for number in range(3):
        assert only(first, Create(number, bytes([number]) * 16, "shop")) == Done(number)
    first.close()
    told: list[int] = []
    again: Store[str] = Store(tmp_path, key_in(tmp_path), on_checked=told.append)
    again.close()
    assert told == [1, 2, 3]
