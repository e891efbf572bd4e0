# SPDX-License-Identifier: Apache-2.0
"""Who belongs to the group: identities, the signed roster, invitations, removal. Decides, and does nothing.

Normative text: docs/spec/membership.md. Start with ``Group`` (a running member) and ``Joining`` (a machine with an
invitation); ``Identity`` and ``Invitation`` are for the shell, because they hold secrets.
"""

from atoll.group.events import (
    DuplicateIdentity,
    GroupEffect,
    GroupInput,
    GroupNotice,
    GroupReceived,
    InviteIssued,
    InvitePeer,
    MembersDecided,
    PeerLinked,
    PeerUnlinked,
    ProfileChanged,
    RemoveAsked,
    Removed,
    SendGroup,
    Sign,
    Signed,
    Stored,
    StoreRoster,
    UninvitePeer,
    WallClock,
)
from atoll.group.group import Group, GroupOptions
from atoll.group.identity import IDENTITY_BYTES, Identity, founding_roster, join_proof, name_from, name_is_good
from atoll.group.invite import (
    INVITE_ENDPOINTS_MAX,
    INVITE_SECRET_BYTES,
    Invitation,
    check_usable,
    decode_invitation,
    encode_invitation,
    invite_exchange_secret,
    invite_public_key,
)
from atoll.group.join import Joined, JoinFailed, Joining, JoiningEffect, JoiningInput, JoinOptions
from atoll.group.limits import INVITE_VALID_S, MEMBERS_MAX
from atoll.group.roster import Roster

__all__ = [
    "IDENTITY_BYTES",
    "INVITE_ENDPOINTS_MAX",
    "INVITE_SECRET_BYTES",
    "INVITE_VALID_S",
    "MEMBERS_MAX",
    "DuplicateIdentity",
    "Group",
    "GroupEffect",
    "GroupInput",
    "GroupNotice",
    "GroupOptions",
    "GroupReceived",
    "Identity",
    "Invitation",
    "InviteIssued",
    "InvitePeer",
    "JoinFailed",
    "JoinOptions",
    "Joined",
    "Joining",
    "JoiningEffect",
    "JoiningInput",
    "MembersDecided",
    "PeerLinked",
    "PeerUnlinked",
    "ProfileChanged",
    "RemoveAsked",
    "Removed",
    "Roster",
    "SendGroup",
    "Sign",
    "Signed",
    "StoreRoster",
    "Stored",
    "UninvitePeer",
    "WallClock",
    "check_usable",
    "decode_invitation",
    "encode_invitation",
    "founding_roster",
    "invite_exchange_secret",
    "invite_public_key",
    "join_proof",
    "name_from",
    "name_is_good",
]
