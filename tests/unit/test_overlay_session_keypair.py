# SPDX-License-Identifier: Apache-2.0
"""Transport keys against Wycheproof, and the index table."""

import gzip
import json
from pathlib import Path
from random import Random
from typing import final

from cryptography.exceptions import InvalidTag

from atoll.base.units import SECOND_NS
from atoll.overlay.session.keypair import NEVER_NS, IndexTable, Keypair

SUITE = Path(__file__).parent.parent / "data" / "wycheproof" / "chacha20_poly1305_test.json.gz"


def keypair(key: bytes = bytes(32), *, local_index: int = 1, rekey_ns: int = NEVER_NS) -> Keypair:
    return Keypair(
        local_index=local_index, remote_index=2, send_key=key, receive_key=key, now_ns=SECOND_NS, rekey_ns=rekey_ns
    )


def test_both_directions_pass_wycheproof() -> None:
    seen = {"valid": 0, "invalid": 0, "refused nonce": 0}
    for group in json.loads(gzip.decompress(SUITE.read_bytes()))["testGroups"]:
        for test in group["tests"]:
            key, iv, associated, message, ciphertext, tag = (
                bytes.fromhex(test[name]) for name in ("key", "iv", "aad", "msg", "ct", "tag")
            )
            pair = keypair(key)
            try:
                opened = pair.opener.decrypt(iv, ciphertext + tag, associated)
            except InvalidTag:
                assert test["result"] == "invalid", test["tcId"]
                seen["invalid"] += 1
            except ValueError:
                assert group["ivSize"] != 96  # Never made here: ours are always 4 zero bytes and the counter.
                seen["refused nonce"] += 1
            else:
                assert (test["result"], opened) == ("valid", message), test["tcId"]
                assert pair.sealer.encrypt(iv, message, associated) == ciphertext + tag
                seen["valid"] += 1
    assert seen["valid"] > 200
    assert seen["invalid"] > 50
    assert sum(seen.values()) == 325


def test_only_the_starter_of_a_session_renews_it() -> None:
    answered, started = keypair(), keypair(rekey_ns=121 * SECOND_NS)
    assert answered.reject_ns == started.reject_ns == 181 * SECOND_NS
    assert answered.rekey_ns == answered.late_ns == NEVER_NS
    assert (started.rekey_ns, started.late_ns) == (121 * SECOND_NS, 166 * SECOND_NS)


@final
class Stuck(Random):
    """Draws the same number again and again."""

    def getrandbits(self, k: int, /) -> int:
        return (1 << k) - 1


def test_indices_are_never_in_use_twice_even_when_the_entropy_repeats_itself() -> None:
    table: IndexTable[str] = IndexTable(Stuck())
    first = table.draw()
    table.keypairs[first] = ("a", keypair(local_index=first))
    second = table.draw()
    table.attempts[second] = "b"
    third = table.draw()
    assert (first, second, third) == (0xFFFF_FFFF, 0, 1)
    assert [table.owner(index) for index in (first, second, third)] == ["a", "b", None]
