# SPDX-License-Identifier: Apache-2.0
"""The key that seals: made at the first start, kept in a file that only its owner reads, held by this process alone."""

from pathlib import Path
from typing import Final, final

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from atoll.base.errors import UserError, WireError
from atoll.base.ids import KEY_BYTES
from atoll.base.version import __version__
from atoll.core.codec import Codec
from atoll.domain.recorder.messages import Code, RefusedError
from atoll.env.chain import (
    FORMAT,
    SIGNATURE_BYTES,
    Manifest,
    Position,
    Seal,
    Sealer,
    is_certified,
    manifest_payload,
    seal_payload,
)
from atoll.host.files import read_private, write_atomic, write_private

__all__ = ["CERTIFICATE_NAME", "KEY_NAME", "RecorderKey"]

KEY_NAME: Final = "recorder.key"  # In the state directory.
CERTIFICATE_NAME: Final = "recorder.cert"  # Beside it: whose recorder this is.
_CERTIFICATE_BYTES_MAX: Final = 1024
_codec: Final = Codec[Sealer](Sealer, bytes_max=_CERTIFICATE_BYTES_MAX, name="recorder certificate")


@final
class RecorderKey:
    """The recorder's Ed25519 key, and its certificate as soon as there is one.

    Args:
        state: The node's state directory. The key is made there when there is none.

    Attributes:
        public: The key, 32 bytes.

    Raises:
        UserError: A101 or A104, the key file cannot be used.
        StorageError: It cannot be made.
    """

    def __init__(self, state: Path) -> None:
        path = state / KEY_NAME
        if not path.exists():
            write_private(path, Ed25519PrivateKey.generate().private_bytes_raw())
        secret = read_private(path)
        if len(secret) != KEY_BYTES:
            raise UserError(
                "A101",
                f"the key file {path} does not hold a key",
                where=f"{len(secret)} bytes",
                fix="restore it from a backup, or move it away: then what was sealed can still be read",
            )
        self._key: Final = Ed25519PrivateKey.from_private_bytes(secret)
        self.public: Final = self._key.public_key().public_bytes_raw()
        self._path: Final = state / CERTIFICATE_NAME
        self._sealer = self._kept()

    def __repr__(self) -> str:
        return f"RecorderKey({self.public.hex()})"  # Never the secret.

    @property
    def certified(self) -> Sealer | None:
        """What this recorder seals as; None: it has no certificate yet."""
        return self._sealer

    @property
    def sealer(self) -> Sealer:
        """What this recorder seals as.

        Raises:
            RefusedError: SIGNATURE, it has no certificate yet.
        """
        if self._sealer is None:
            raise RefusedError(Code.SIGNATURE, "this recorder has no certificate yet")
        return self._sealer

    def is_own(self, sealer: Sealer) -> bool:
        """Tell whether a sealer is this recorder, or one that its node had before; the signature is checked elsewhere.

        A key that was lost leaves what it signed, and the node's signing key says that it was its recorder's.
        """
        own = self._sealer
        if sealer.recorder == self.public:
            return True
        is_nodes = own is not None and (sealer.node, sealer.signing_key) == (own.node, own.signing_key)
        return is_nodes and is_certified(sealer)

    def certify(self, sealer: Sealer) -> None:
        """Take the certificate, and keep it.

        Raises:
            RefusedError: SIGNATURE, it is not one of this key.
            StorageError: It cannot be kept.
        """
        if not self._fits(sealer):
            raise RefusedError(Code.SIGNATURE, "a certificate that is not one of this recorder")
        if sealer != self._sealer:
            write_atomic(self._path, _codec.encode(sealer))
            self._sealer = sealer

    def seal(self, environment: bytes, head: bytes) -> Seal:
        """Seal a head."""
        return Seal(head, self._key.sign(seal_payload(environment, head)))

    def sign(self, payload: bytes) -> bytes:
        """Return the signature of something that is no head, such as a snapshot's name; 64 bytes."""
        return self._key.sign(payload)

    def manifest(self, environment: bytes, name: str, at: Position) -> Manifest:
        """Return the manifest of a segment that this recorder begins.

        Raises:
            RefusedError: SIGNATURE, it has no certificate yet.
        """
        draft = Manifest(FORMAT, environment, name, __version__, at, self.sealer, bytes(SIGNATURE_BYTES))
        return msgspec.structs.replace(draft, signature=self._key.sign(manifest_payload(draft)))

    def _fits(self, sealer: Sealer) -> bool:
        return sealer.recorder == self.public and is_certified(sealer)

    def _kept(self) -> Sealer | None:
        """Return the certificate that was kept; None: there is none that fits, and control gives one."""
        try:
            sealer = _codec.decode(self._path.read_bytes())
        except (OSError, WireError):
            return None
        return sealer if self._fits(sealer) else None
