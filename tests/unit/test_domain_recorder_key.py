# SPDX-License-Identifier: Apache-2.0
"""A recorder's key is made once, is never shown, and seals only with a certificate that is its own."""

import stat
from pathlib import Path

import msgspec
import pytest

from atoll.base.errors import StorageError, UserError
from atoll.domain.recorder.key import CERTIFICATE_NAME, KEY_NAME, RecorderKey
from atoll.domain.recorder.messages import Code, RefusedError
from atoll.env.chain import GENESIS, Verifier, certificate_payload, seal_payload, signed_by
from tests.unit.recorder_world import ENVIRONMENT, NODE, Hand, key_in


def test_a_key_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    first = RecorderKey(tmp_path)
    assert RecorderKey(tmp_path).public == first.public
    assert stat.S_IMODE((tmp_path / KEY_NAME).stat().st_mode) == 0o600
    secret = (tmp_path / KEY_NAME).read_bytes()
    assert len(secret) == 32
    assert secret.hex() not in repr(first)
    assert first.public.hex() in repr(first)
    assert first.certified is None


def test_a_key_that_is_none_or_open_to_others_is_refused(tmp_path: Path) -> None:
    path = tmp_path / KEY_NAME
    path.write_bytes(b"short")
    path.chmod(0o600)
    with pytest.raises(UserError, match="A101"):
        RecorderKey(tmp_path)
    path.chmod(0o644)
    with pytest.raises(UserError, match="A104"):
        RecorderKey(tmp_path)


def test_a_certificate_is_kept(tmp_path: Path) -> None:
    key = key_in(tmp_path)
    hand = Hand()
    assert key.sealer == key.certified == hand.sealer
    assert key_in(tmp_path, certified=False).certified == hand.sealer
    before = (tmp_path / CERTIFICATE_NAME).stat().st_ino
    key.certify(hand.sealer)
    assert (tmp_path / CERTIFICATE_NAME).stat().st_ino == before


def test_a_certificate_of_another_key_is_refused(tmp_path: Path) -> None:
    key = key_in(tmp_path, certified=False)
    wrong = msgspec.structs.replace(Hand().sealer, certificate=bytes(64))
    for sealer in (Hand(8).sealer, wrong):
        with pytest.raises(RefusedError) as caught:
            key.certify(sealer)
        assert caught.value.code is Code.SIGNATURE
    with pytest.raises(RefusedError, match="no certificate"):
        _ = key.sealer


@pytest.mark.parametrize("content", [b"", b"\xc1", msgspec.msgpack.encode(Hand(8).sealer)])
def test_a_kept_certificate_that_does_not_fit_counts_for_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / CERTIFICATE_NAME).write_bytes(content)
    assert key_in(tmp_path, certified=False).certified is None


def test_a_certificate_that_cannot_be_kept_is_not_taken(tmp_path: Path) -> None:
    key = key_in(tmp_path, certified=False)
    (tmp_path / CERTIFICATE_NAME).mkdir()
    (tmp_path / CERTIFICATE_NAME / "file").touch()
    with pytest.raises(StorageError):
        key.certify(Hand().sealer)
    assert key.certified is None


def test_what_it_signs_checks(tmp_path: Path) -> None:
    key = key_in(tmp_path)
    seal = key.seal(ENVIRONMENT, b"h" * 32)
    assert signed_by(key.public, seal_payload(ENVIRONMENT, b"h" * 32), seal.signature)
    assert signed_by(key.public, b"payload", key.sign(b"payload"))
    manifest = key.manifest(ENVIRONMENT, "shop", GENESIS)
    Verifier(ENVIRONMENT).feed(manifest)
    assert (manifest.name, manifest.sealer.node) == ("shop", NODE)
    assert signed_by(manifest.sealer.signing_key, certificate_payload(NODE, key.public), manifest.sealer.certificate)


def test_its_own_are_this_key_and_those_that_its_node_has_certified(tmp_path: Path) -> None:
    key = key_in(tmp_path, certified=False)
    assert key.is_own(Hand().sealer)
    assert not key.is_own(Hand(8).sealer)
    key = key_in(tmp_path)
    assert key.is_own(Hand(8).sealer)
    strangers = Hand(8, signer=2).sealer, Hand(8, b"other-node").sealer
    forged = msgspec.structs.replace(Hand(8).sealer, certificate=bytes(64))
    assert not any(key.is_own(sealer) for sealer in (*strangers, forged))
