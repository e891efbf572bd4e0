# SPDX-License-Identifier: Apache-2.0
"""XChaCha20-Poly1305 against the vectors of draft-irtf-cfrg-xchacha-03."""

from random import Random

from atoll.overlay.session.xchacha import hchacha20, open_sealed, seal

KEY = bytes(range(0x80, 0xA0))
NONCE = bytes(range(0x40, 0x58))
ASSOCIATED = bytes.fromhex("50515253c0c1c2c3c4c5c6c7")
PLAINTEXT = b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, %s" % (
    b"sunscreen would be it."
)
SEALED = bytes.fromhex(
    "bd6d179d3e83d43b9576579493c0e939572a1700252bfaccbed2902c21396cbb731c7f1b0b4aa6440bf3a82f4eda7e39"
    "ae64c6708c54c216cb96b72e1213b4522f8c9ba40db5d945b11b69b982c1bb9e3f3fac2bc369488f76b2383565d3fff9"
    "21f9664c97637da9768812f615c68b13b52e"
    "c0875924c1c7987947deafd8780acf49"
)


def test_hchacha20_repeats_section_2_2_1() -> None:
    nonce = bytes.fromhex("000000090000004a0000000031415927")
    subkey = "82413b4227b27bfed30e42508a877d73a0f9e4d58a74a853c12ec41326d3ecdc"
    assert hchacha20(bytes(range(32)), nonce).hex() == subkey


def _rotated(value: int, by: int) -> int:
    return (value << by | value >> (32 - by)) & 0xFFFF_FFFF


def _naive_hchacha20(key: bytes, nonce: bytes) -> bytes:
    """The definition, round by round."""
    data = b"expand 32-byte k" + key + nonce
    x = [int.from_bytes(data[at : at + 4], "little") for at in range(0, 64, 4)]
    columns = [(i, i + 4, i + 8, i + 12) for i in range(4)]
    diagonals = [(i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4) for i in range(4)]
    for a, b, c, d in (columns + diagonals) * 10:
        for first, second, third, by in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
            x[first] = (x[first] + x[second]) & 0xFFFF_FFFF
            x[third] = _rotated(x[third] ^ x[first], by)
    return b"".join(word.to_bytes(4, "little") for word in x[:4] + x[12:])


def test_hchacha20_is_what_its_definition_says() -> None:
    rng = Random(5)
    for _ in range(20):
        key, nonce = rng.randbytes(32), rng.randbytes(16)
        assert hchacha20(key, nonce) == _naive_hchacha20(key, nonce)
    assert hchacha20(bytes(32), b"\xff" * 16) == _naive_hchacha20(bytes(32), b"\xff" * 16)  # The counter word is full.


def test_seal_repeats_section_a_3_1() -> None:
    assert seal(KEY, NONCE, PLAINTEXT, ASSOCIATED) == SEALED
    assert open_sealed(KEY, NONCE, SEALED, ASSOCIATED) == PLAINTEXT


def test_what_is_not_authentic_does_not_open() -> None:
    assert open_sealed(KEY, NONCE, SEALED[:-1] + b"\0", ASSOCIATED) is None
    assert open_sealed(KEY, NONCE, SEALED, b"") is None
    assert open_sealed(KEY, bytes(24), SEALED, ASSOCIATED) is None
    assert open_sealed(KEY, NONCE, b"", ASSOCIATED) is None
