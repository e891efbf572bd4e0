# SPDX-License-Identifier: Apache-2.0
"""Named limits of the room, each with its reason and what happens when it is reached."""

from typing import Final

from atoll.base.units import HOUR_NS, KIB, MIB, MILLISECOND_NS, MINUTE_NS, SECOND_NS

TUPLE_BYTES_MAX: Final = 256 * KIB
"""One encoded tuple. A larger one is refused where it is made: data belongs into a store, and its name into a tuple."""

NESTING_MAX: Final = 64
"""Lists and maps in each other, in one encoded tuple, or in the state of an application. What is deeper is refused
where it is made and where it comes in: from some 900 on it depends on the stack of whoever decodes it whether that can
be done, and what was taken once must be read back anywhere."""

UNCONFIRMED_MAX: Final = 4_096
"""Items on their way to one party. At it ``send`` and ``call`` raise ``QueueFull`` in the handler."""

PARTIES_MAX: Final = 4_096
"""Parties that one environment has dealt with lately; at it the one that was silent longest is forgotten."""

PARTIES_KNOWN_MAX: Final = 2 * PARTIES_MAX
"""Parties of which none can be forgotten yet. At it a new one is refused, and ``send`` to one raises ``QueueFull``."""

PARTY_KEPT_NS: Final = 60 * SECOND_NS
"""So long after it was last heard of a party is not forgotten. A copy of what it has sent may come
again until then, and must be known by its number."""

DOUBT_NS: Final = PARTY_KEPT_NS // 2
"""Somebody may have been forgotten since something came from him that he sends again, if one who was forgotten had been
heard of at most so long before it was made. Half of the above: a message or a clock may be half a minute late."""

DOUBTS_MAX: Final = PARTIES_MAX
"""Parties to which it is to be said, once that is committed, that they were forgotten. At it a further one is told
nothing yet: it says again what is in doubt."""

PARTY_SILENT_NS: Final = 1 * HOUR_NS
"""A party that was not heard of for so long may be forgotten with what is owed to it when room is needed."""

LIVED_STEP_NS: Final = 1 * SECOND_NS
"""So much of the time between two records counts as lived: a clock that is set makes nobody look silent for years."""

OPERATIONS_MAX: Final = 4_096
"""Calls of one environment that wait for their response. At it ``call`` raises ``QueueFull``."""

TIMERS_MAX: Final = 65_536
"""Timers of one environment, some 100 bytes each. At it ``after`` raises ``QueueFull``."""

NESTED_MAX: Final = 1_024
"""Environments inside one outermost environment; they are checkpointed and moved together."""

ITEMS_MAX: Final = 1_024
"""Items that travel together: as many as a block holds, so that one slow handler does not hold up a block for long."""

VERSION_MAX: Final = 1_000_000
"""Version of an application's state: a counter that people raise."""

CALL_TIMEOUT_S: Final = 60.0
"""How long a call waits when nobody says it: one.world's default."""

WAIT_S_MAX: Final = 366 * 86_400.0
"""Longest time-out or timer: a year. What is later belongs into state, with a timer that looks after it."""

TOKEN_BYTES_MAX: Final = 64
"""One id: what one BLAKE2b gives."""

LOCAL_EVENTS_MAX: Final = 10_000
"""Events between nested environments that follow from one input. More are a loop, and the input counts as failed."""

NAME_CHARS_MAX: Final = 64
"""Name of an environment."""

RECORDS_BYTES_MAX: Final = 8 * MIB
"""Records of one block, not compressed; must stay below the 16 MiB of a frame's length. ``pack_body`` refuses more."""

BLOCK_FRAME_BYTES_MAX: Final = RECORDS_BYTES_MAX + KIB
"""One frame of a journal: a body that does not compress, its seal and its numbers. A longer length does not check."""

QUERY_BYTES_MAX: Final = 4 * KIB
"""One encoded query. A longer one cannot be made: whoever wants 200 ids asks for something that they share."""

QUERY_DEPTH_MAX: Final = 16
"""Nesting of and, or, not in a query. Deeper ones cannot be made; so nothing that walks one runs out of stack."""

QUERY_TERMS_MAX: Final = 64
"""Terms of one query: values that it compares with, some 100 ns each for each tuple that it is asked of. With more it
cannot be made."""

CONTAINS_TERMS: Final = 8
"""So many terms is a ``contains``: it looks through a list that others made, 50 ns for each item."""

QUERY_TEXT_CHARS_MAX: Final = 8 * QUERY_BYTES_MAX
"""Text of one query, refused unread when it is longer. An encoded byte gives eight characters at most."""

BLOCK_EVENTS_MAX: Final = 1_024
"""Events in one block, unless one frame brings more: what one signature and one flush are shared by."""

CHECKPOINT_EVENTS: Final = 100_000
"""Events between two checkpoints: a restore applies so many at most, some tenths of a second of short handlers."""

CHECKPOINT_BLOCKS: Final = 4_096
"""Blocks between two checkpoints, where events come one by one: a restore takes 60 to 100 us for each, 0.4 s in all."""

CHECKPOINT_BLOCK_BYTES: Final = KIB
"""As many more blocks as a state has of these bytes: a large state is not written each 20 s for a few small events."""

CHECKPOINT_BYTES: Final = 8 * MIB
"""Bytes of items between two checkpoints; they are kept in memory, to undo a handler that fails."""

UNDO_EVENTS: Final = 10_000
"""Events that undoing failed handlers may apply again between two checkpoints. At it the state is written and read back
in memory, so that the next failure has little to repeat: else each costs up to CHECKPOINT_EVENTS, and a stranger can
cause as many as he likes. While a coroutine waits the state cannot be written, and a failure may cost DRAIN_EVENTS."""

UNDO_EVENT_BYTES: Final = KIB
"""So many bytes of records that are applied again count as one more such event: to decode large items takes as long."""

DRAIN_EVENTS: Final = 2 * CHECKPOINT_EVENTS
"""Events without a moment in which no coroutine waits, which a checkpoint needs. At it no coroutine begins any more:
what they would handle is put off until the checkpoint was taken."""

DRAIN_BYTES: Final = 2 * CHECKPOINT_BYTES
"""Bytes of items, as above."""

DRAIN_AWAITS_MAX: Final = 100
"""How often a coroutine may wait once no other begins; then it fails. One that loops for ever would keep all others
waiting. With AWAIT_S_MAX it bounds the time until there is a checkpoint."""

AWAIT_S_MAX: Final = 600.0
"""How long a coroutine may wait for one call or sleep: no snapshot can be taken meanwhile. Timers and ``then=`` wait up
to WAIT_S_MAX, because they are state."""

PUT_OFF_MAX: Final = 4_096
"""Events of coroutines that are put off. At it the next one fails with ``QueueFull``, and whoever asked hears so."""

LEASE_NS_MIN: Final = 1 * SECOND_NS
"""Shortest lease of a space: one.world's. Who asks for less gets this, or renewing would be all that anybody does."""

LEASE_NS_DEFAULT: Final = 1 * MINUTE_NS
"""Lease of whoever does not say how long: one.world's."""

LEASE_NS_MAX: Final = 10 * MINUTE_NS
"""Longest lease of a space: one.world's. Who asks for more gets this; so long stays what a vanished party left."""

SPACE_TUPLES_MAX: Final = 16_384
"""Tuples in one space. At it ``put`` is refused: a query without a type looks at each, in some 5 ms."""

SPACE_BYTES_MAX: Final = 4 * MIB
"""Encoded tuples of one space. At it ``put`` is refused: all of them are part of each snapshot of their environment."""

SPACE_WATCHES_MAX: Final = 256
"""Watches of one space. At it ``watch`` is refused: each put asks each of them, some 0.1 us where the type differs."""

SPACE_READ_MAX: Final = 1_024
"""Tuples that ``read`` and ``take`` give when nobody says how many: some ms of work."""

SPACE_READ_BYTES: Final = TUPLE_BYTES_MAX - 4 * KIB
"""Tuples of one response to another party, which is a tuple itself; what does not fit is asked for again."""

TUPLE_DEPTH_MAX: Final = 32
"""Nesting of lists and maps in a tuple of a space; a deeper one is refused. What is written must be read back anywhere,
and how deep that may go depends on the stack of whoever reads."""

NUMBER_MAX: Final = 1 << 48
"""Epochs and numbers of blocks that other nodes may name: 8,900 years of a thousand a second. A recorder reads 63 bits,
so what follows from such a number, as the next epoch does, never leaves what it reads."""

HEARTBEAT_NS: Final = 250 * MILLISECOND_NS
"""An owner is heard so often by each holder: 4 small messages a second for each environment and holder. One that is
alone with its journal has nobody to tell, and does nothing meanwhile."""

ELECTION_NS_MIN: Final = 900 * MILLISECOND_NS
"""A holder that heard no owner for so long stands for election: three heartbeats were lost or late."""

ELECTION_NS_MAX: Final = 1_500 * MILLISECOND_NS
"""The time is drawn between the two, so that holders seldom stand at once; the spread is some round trips."""

SUSPECT_NS: Final = 100 * MILLISECOND_NS
"""When the overlay takes the owner for lost, a holder stands after a time drawn below this, for the same reason."""

OWNER_ALONE_NS: Final = 2 * SECOND_NS
"""An owner that no majority answered for so long steps down: nothing could commit, and there may be another."""

HOLDERS_MAX: Final = 5
"""Holders of one environment: five survive the loss of any two, and each more makes every block dearer."""

LEARNERS_MAX: Final = 4
"""Nodes beside the holders whom an owner tells everything: one that shall be a holder, and some that were. At it the
one that left first is told no more."""

PIPELINED_BLOCKS_MAX: Final = 64
"""Own blocks that are not committed yet: 640 blocks a second when a commit takes 100 ms. At it the runner is held."""

PIPELINED_BYTES_MAX: Final = 32 * MIB
"""Own blocks that are not sealed yet, together; they wait in memory. At it the runner is held."""

SEALED_BYTES_MAX: Final = BLOCK_FRAME_BYTES_MAX + 4 * KIB
"""One block on its way to another journal: its frame, and the keys and certificates that say who sealed it."""

STORE_BLOCKS_MAX: Final = 64
"""Blocks of one message. More follow in the next."""

STORE_BYTES: Final = MIB
"""Blocks of one message together, bytes; but one block always fits."""

HOLDING_BYTES_MAX: Final = SEALED_BYTES_MAX + 2 * MIB
"""One message about holding: the largest block, or STORE_BYTES of small ones, and what surrounds them. A longer one is
refused unread."""

WINDOW_BLOCKS_MAX: Final = 256
"""Blocks that were told to one node and not confirmed: enough for 1 s of a busy environment. At it no more are told."""

KEEPS_MAX: Final = 512
"""Blocks of an owner that wait for the own disk: two whole windows. What comes then is dropped, and told again."""

EARLY_NS: Final = 2 * HEARTBEAT_NS
"""So long a holder waits for blocks that were overtaken before it says that they are missing: a lost datagram is sent
again meanwhile. To say so costs a round trip in which it is told nothing, and all that is on its way twice."""

EARLY_MESSAGES_MAX: Final = 64
"""Messages of blocks that wait for such blocks; at it those are taken for missing."""

EARLY_BYTES_MAX: Final = MIB
"""The same, bytes together."""

PART_BYTES: Final = 256 * KIB
"""One part of a snapshot; one is on its way at a time, so that a snapshot does not hold up blocks."""

PARTS_MAX: Final = 4_096
"""Parts of one snapshot: four times as many as the largest has. One in more is dropped: each part costs its list."""

SNAPSHOT_BYTES_MAX: Final = 256 * MIB
"""A snapshot that goes to another node; it is put together in memory there. A larger one is refused."""

PROGRESS_NS: Final = 10 * SECOND_NS
"""A node that shall be a holder and took nothing for so long is lost; the change is given up."""

ROUND_NS: Final = ELECTION_NS_MIN
"""A node that got in so short a time what was committed before may be made a holder: no block waits longer for it."""

ROUNDS_MAX: Final = 10
"""Rounds in which a node may catch up. One whose rounds are all longer takes less than comes, and is no holder."""

NEAR_BLOCKS: Final = PIPELINED_BLOCKS_MAX
"""A holder that was told everything and lacks no more than these blocks may be told to stand for election, which it
does when it has them: they are on their way, and from far away to wait for its answer would take a round trip more."""

LEAVE_NS: Final = 10 * SECOND_NS
"""A node that was a holder is told everything for so long, so that it learns that it is none, and stands no more. One
that was away meanwhile asks as often as this, until somebody says so."""

PREPARE_NS: Final = 30 * SECOND_NS
"""How long a holder may take to restore what it is about to own. It runs on meanwhile where it is: nobody waits."""

HAND_OVER_NS: Final = 3 * SECOND_NS
"""A move that is not done so long after proposals stopped is given up: two times of an election, and proposals wait."""

DISK_RETRY_NS: Final = 500 * MILLISECOND_NS
"""Between two attempts to write what the disk refused."""

DISK_FAILED_NS: Final = 3 * SECOND_NS
"""An owner whose disk refuses for so long hands over to another holder, if there is one."""

UNFIT_NS: Final = 5 * SECOND_NS
"""For so long afterwards it stands for no election; then somebody may have made room."""

CARRIED_BYTES_MAX: Final = 8 * MIB
"""One message between parties or nodes. ITEMS_MAX items of ordinary size are 100 KiB; some large ones fit as well."""

MESSAGE_BYTES_MAX: Final = CARRIED_BYTES_MAX + KIB
"""The same with its ids and numbers. What carries it has room for it, and for a few bytes that say whose it is."""

PASSED_ON_BYTES: Final = 64
"""A message that comes is shorter by these than one that leaves may be: what its sender left out because it is as usual
is written when the message is passed on."""

CODE_CHUNK_BYTES_MAX: Final = 4 * MIB
"""Code that is sent from node to node: one bundle."""

NOTICES_MAX: Final = 1_024
"""Environments that one node tells of, some 150 bytes each."""

PARCEL_BYTES: Final = MIB
"""Items that leave for one party together, bytes; but one item always fits. More follow in a parcel of their own."""

BLOCK_BYTES: Final = 2 * MIB
"""Records of one block, of which the last may go beyond it: far below RECORDS_BYTES_MAX, which no block may reach."""

CLASS_CHARS_MAX: Final = 200
"""Name of an application's class: as long as anything that a person writes. A notice with a longer one is refused."""

OVER_MAX: Final = 1_024
"""Environments that have ended here and of which a node still tells, so that holders that were away hear of it, too."""

RESTORE_RETRY_NS: Final = 5 * SECOND_NS
"""After how long an environment that could not go on here is restored again: by then somebody may have helped."""

INBOX_ITEMS_MAX: Final = 65_536
"""Items that wait for one environment. At it more are refused as ``queue-full``, and their sender is told."""

INBOX_BYTES_MAX: Final = 64 * MIB
"""The same, bytes together."""

BLOCKS_AHEAD_MAX: Final = 16
"""Blocks of one environment that are being sealed and copied. At it what comes waits in the queue."""

AGAIN_NS: Final = 100 * MILLISECOND_NS
"""How often one party is asked for items that are missing: a round trip between far nodes. Else each frame behind a gap
would ask for all of them, and each of those for all of them again."""

SLEW_PARTS: Final = 10
"""An environment whose time is ahead of its node's clock loses one part in so many: a clock that was a minute wrong is
right again after ten, and no timer is more than a ninth late."""

CONFIRM_NS: Final = 200 * MILLISECOND_NS
"""How long confirmations of parties wait to share a record: what is confirmed later is only kept a little longer."""

RESEND_NS: Final = SECOND_NS
"""After how long without a confirmation items are sent again: a lost frame, or a party that was away."""

RESEND_PARCELS_MAX: Final = 64
"""Parcels that are sent again at a time, so that one party that is away does not fill the links."""

TOLD_MAX: Final = 256
"""Changes that wait to be told. More are dropped: they are news, and the newest state can be asked for."""

DIRECTORY_MAX: Final = 8_192
"""Environments of a group that one node knows of, some 300 bytes each, those that have ended included."""

DIRECTORY_TOLD_MAX: Final = DIRECTORY_MAX // 8
"""Of these, environments that one node brought in by saying that it runs them: as many as a recorder keeps. More of it
are not taken, so that no member takes the room of the others."""

NAMED_AT_ONCE_NS: Final = 1 * SECOND_NS
"""Of environments of one name that were heard of within so long the lowest id has it, on all nodes: they began at once,
and not every node hears of them in the same order. One that comes later does not get the name."""

OWNERLESS_NS: Final = 10 * MINUTE_NS
"""When nobody has said for so long who runs an environment, and its last owner is no member any more, it is forgotten,
and its name is free: its holders, if there are any, had the time to elect another one."""

NOTICE_NS: Final = 5 * SECOND_NS
"""How often a node tells all others what it runs, beside telling it at each change: a lost notice is made good so."""

SILENT_NS: Final = 3 * NOTICE_NS
"""When the owner of an environment has said nothing for so long, a node that was no holder may say that it
owns it: the notices that made it one were lost."""

HOPS_MAX: Final = 3
"""How often a message is passed on from node to node: from one that has given an environment away to the next one, or
to where a client is. At it a message is dropped, and sent again by who sent it: nodes may believe it of each other."""

ROUTES_MAX: Final = 16_384
"""Clients of other nodes, and behind which node they are; at it the one not heard for longest is forgotten."""

COPIES: Final = 3
"""Nodes that keep an environment's journal unless somebody says otherwise: any one of them may be lost."""

LOST_NS: Final = 30 * SECOND_NS
"""How long a holder may be lost before another node takes its place: a restart or an upgrade takes less."""

AWAITED_NS: Final = SILENT_NS
"""How long a member must be lost before it is said that a program waits for it, and that its removal would end the
waiting. A path that heals and a node that has just started take less; who asks meanwhile waits for the answer."""

CONFIRM_ITEMS: Final = 256
"""So many confirmed items of one party are recorded at once, without waiting for CONFIRM_NS."""

OWED_MAX: Final = 4 * UNCONFIRMED_MAX
"""Responses that a party has not confirmed. At it nothing more is taken of it: it asks and does not read."""

MAINTAIN_NS: Final = SECOND_NS
"""How often an owner looks whether as many nodes keep its environments as should."""

DUES_SPARE: Final = 64
"""Times that hold no more and are in the heap of all dues, beside as many as there are environments. Beyond it the heap
is made anew, which costs each of those times no more than putting it in has."""

STRANDED_MAX: Final = 1_024
"""Messages of one node for environments that are changing hands. More are dropped, and sent again by who sent them."""

STRANDED_BYTES_MAX: Final = 64 * MIB
"""The same, bytes of items: one that cannot go on may wait for long, and all its clients say theirs again."""

GONE_MAX: Final = 3
"""How often in a row whoever runs an environment may be gone before a record that no handler is to blame for. Then it
does not run here any more: something ends its process again and again."""

PARCEL_BYTES_MAX: Final = 4 * MIB
"""Items that leave together; more are cut in two. Half of what one message may have, so one item more always fits."""

FLEE_NS: Final = MINUTE_NS
"""After an environment was moved away from a slow node, or could not be, so long before it is tried again."""

STAY_NS: Final = 10 * MINUTE_NS
"""An environment that was moved to a node stays there so long even if that is slow: somebody may have wanted it so."""
