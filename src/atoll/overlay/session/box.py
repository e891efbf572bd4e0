# SPDX-License-Identifier: Apache-2.0
"""A key sealed for one node, to be opened by that node's packet device alone: Noise's one-way pattern N.

::

    <- s
    ...
    -> e, es, payload

Whoever knows a public key can seal for it, and nothing says who did: what a box holds is proved by what it is good for
(a private key, by its public key), and who handed it out by the signature around it.

Source: The Noise Protocol Framework, revision 34, section 7.4.
"""

from typing import Final

from atoll.base.ids import KEY_BYTES
from atoll.overlay.session.noise import PrivateKey, SymmetricState
from atoll.overlay.session.protocol import TAG_BYTES

__all__ = ["BOX_BYTES", "open_box", "seal_box"]

BOX_BYTES: Final = KEY_BYTES + KEY_BYTES + TAG_BYTES
_PROTOCOL: Final = b"Noise_N_25519_ChaChaPoly_BLAKE2s"
_PROLOGUE: Final = b"atoll gateway 1"  # Spec.


def seal_box(recipient: bytes, secret: bytes, ephemeral: PrivateKey, prologue: bytes = _PROLOGUE) -> bytes | None:
    """Return ``secret`` sealed for the holder of a public key; None: that key is a low-order point.

    Args:
        recipient: X25519, 32 bytes.
        secret: 32 bytes.
        ephemeral: A fresh key, used for this box only.
        prologue: What both sides must agree that it is for.
    """
    shared = ephemeral.agree(recipient)
    if shared is None:
        return None
    return ephemeral.public + _keyed(recipient, ephemeral.public, shared, prologue).seal(secret)


def open_box(static: PrivateKey, box: bytes, prologue: bytes = _PROLOGUE) -> bytes | None:
    """Return what was sealed for this key; None: not for it, or not authentic. Any bytes may be given."""
    theirs = box[:KEY_BYTES]
    shared = static.agree(theirs)
    if len(box) != BOX_BYTES or shared is None:
        return None
    return _keyed(static.public, theirs, shared, prologue).open(box[KEY_BYTES:])


def _keyed(recipient: bytes, ephemeral: bytes, shared: bytes, prologue: bytes) -> SymmetricState:
    state = SymmetricState(_PROTOCOL)
    state.mix_hash(prologue)
    state.mix_hash(recipient)
    state.mix_hash(ephemeral)
    state.mix_key(shared)
    return state
