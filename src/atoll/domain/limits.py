# SPDX-License-Identifier: Apache-2.0
"""Named limits of the room, each with its reason and what happens when it is reached."""

from typing import Final

from atoll.base.units import GIB, KIB, MIB

ENDED_MAX: Final = 8_192
"""Environments that have ended of which the recorder tells, 16 bytes each: as many as a node remembers."""

RECORDED_MAX: Final = 1_024
"""Environments that one recorder keeps, some 2 KiB of memory each. At it another one is refused with ``limit``."""

SEGMENT_BYTES_MAX: Final = 64 * MIB
"""One segment file: what is read and checked at the start for each environment, and the unit of retention."""

BATCH_BYTES_MAX: Final = 16 * MIB
"""Blocks of one environment that share one write and one sync; more wait for the next. Room for two of the largest."""

SEGMENTS_OPEN_MAX: Final = 128
"""Segment files that stay open for appending: far below the 1,024 descriptors that a process may have by default."""

INDEX_STEP_BYTES: Final = 256 * KIB
"""Between two known places in a segment: reading from any block passes over so much at most."""

KEPT_SNAPSHOT_BYTES_MAX: Final = 64 * MIB
"""One snapshot of an environment: written and read whole, and what decides how long a move takes."""

KEPT_SNAPSHOTS_MAX: Final = 64
"""Snapshots of one environment. At it another one is refused with ``limit`` until ``Retain`` lets old ones go."""

SNAPSHOTS_STAY: Final = 16
"""Snapshots of one environment that outlast ``Retain``, spread over its blocks: to look at its past, and no more than a
GiB of the largest. Those between can be made again from the blocks."""

RETAINED_BYTES: Final = GIB
"""Blocks of one environment that are kept at least: weeks of an ordinary one, an hour of the busiest. What is older
goes by whole segments once a snapshot follows it, and with it what it could prove."""

ORPHANS_MAX: Final = 4_096
"""Files of blocks that were cut from one journal or given up. At it ``Cut`` and ``Restart`` are refused with ``limit``
until ``Retain``."""

CODE_BYTES_MAX: Final = 16 * MIB
"""One archive of code: modules and their data, no models."""

CODE_FILES_MAX: Final = 4_096
"""Archives of code. At it another one is refused with ``limit``: something makes a new version for each start."""

HEADS_BYTES_MAX: Final = 1 * MIB
"""Heads of one other node's journals in one file, 8,400 of 124 bytes; then the newest of each environment stay."""

HEADS_NODES_MAX: Final = 1_024
"""Other nodes whose heads are kept: a group has some 50. At it those of another node are refused with ``limit``."""

READ_BYTES_MAX: Final = 16 * MIB
"""Blocks of one answer to ``Read``, but for one larger than asked for."""

MESSAGE_BYTES_MAX: Final = KEPT_SNAPSHOT_BYTES_MAX + MIB
"""One message between the recorder and who uses it. A longer one ends the connection."""

CONNECTION_BYTES: Final = 4 * MIB
"""Asked of the kernel for each direction of a connection: a few turns of what a busy server of environments writes."""

RECEIVE_BYTES: Final = 256 * KIB
"""Read from a connection at a time."""

TURN_BYTES_MAX: Final = 16 * MIB
"""Read from one connection before what came is served: no other one waits for longer than that takes to write."""

ANSWERS_BYTES_MAX: Final = 32 * MIB
"""Answers that a connection has not taken. Above it, its further requests wait."""

CONNECTIONS_MAX: Final = 16
"""Connections of one recorder: control's, and one for each server of environments that it has started."""

REQUESTS_MAX: Final = 8_192
"""Requests of one client that wait for their answer; at it ``request`` raises ``LimitError``."""

REQUESTS_BYTES_MAX: Final = 128 * MIB
"""Bytes of requests that the recorder has not taken; at it ``request`` raises ``LimitError``. Room for a snapshot."""

RECORDER_START_S_MAX: Final = 60.0
"""How long a recorder that starts may take from one journal to the next, before its start counts as failed. It checks
the newest segment of each: 1.2 s for a full one of the smallest blocks, and 20 minutes for RECORDED_MAX of those."""

RECORDER_STOP_S_MAX: Final = 5.0
"""How long a recorder that was let go may take to finish what it has begun, before it is killed."""

RECORDER_LOCK_S_MAX: Final = 5.0
"""How long a recorder waits for the one before it, whose control died, to let go of the files."""

STATE_BYTES_MAX: Final = KEPT_SNAPSHOT_BYTES_MAX + KIB
"""One snapshot on its way between nodes: with where it stands, and who signed it."""

PARCELS_BYTES_MAX: Final = 2 * STATE_BYTES_MAX
"""Snapshots of one node that others are reading in parts, together; beyond it the one not read for longest goes, and is
read again from the recorder."""

SHIPPED_AT_ONCE: Final = 2
"""Snapshots that one node takes from owners at a time, in memory until they are whole; further ones wait."""

SHIPPED_PENDING_MAX: Final = 1_024
"""Environments of which a snapshot is coming or waits to. One more is dropped: the next snapshot is offered as well."""

SHIP_PAUSE_S: Final = 0.02
"""Between two parts of such a snapshot: 12 MiB/s at most, so that blocks have the link."""

SHIP_PART_S: Final = 5.0
"""How long one part may take to come; then it is asked for again."""

SHIP_LOOK_S: Final = 1.0
"""Between two looks for the block after which a snapshot was taken: a holder that far behind has other things to do."""

SHIP_TRIES: Final = 6
"""How often in a row one part is asked for, and how often a block is looked for that is not here yet. Then the snapshot
is given up; the next one is offered as well."""

BUNDLE_BYTES_MAX: Final = 4 * MIB
"""Source of one application: far more than a person writes. Data belongs elsewhere. It is refused where it is made."""

BUNDLE_FILES_MAX: Final = 256
"""Modules of one application that are its own; installed packages do not count."""

GIVEN_BYTES_PER_S: Final = 4 * MIB
"""Code that one other node is given: the largest in a second. To ask for it takes 60 bytes, so a member could else have
this node send, and read its disk, without end."""

GIVING_MAX: Final = 256
"""Codes that one other node waits for. What it asks for beyond is passed over; it asks again."""

CODE_AGAIN_S: Final = 2.0
"""How often other nodes are asked for code that does not come: the message or its answer may be lost."""

CODE_SHOWN_S: Final = 0.1
"""How often the keepers of what was upgraded are asked whether they have its code: they get it while a person waits."""

CODE_S_MAX: Final = 30.0
"""How long it may take to come. Then who needs it is told so, and tries again in a while."""

SERVER_FRAME_BYTES_MAX: Final = 16 * MIB
"""One frame between the server of environments and its clients or control: code, a log, or many items."""

SERVER_MEMBERS_MAX: Final = 1_024
"""Members of which control tells; a group has at most as many."""

UNREAD_BYTES_MAX: Final = 32 * MIB
"""What one client has not read. At it the connection is cut; nothing is lost, because it is sent again. Between control
and the server, what is said from node to node is dropped at it: it is said again, and neither ends for being slow."""

SESSIONS_MAX: Final = 256
"""Clients of one server at a time; at it another one is closed at once."""

COMMAND_BYTES_MAX: Final = 4 * MIB - 64 * KIB
"""What comes of one command, as JSON: as much as the node's API tells. More is told as a failure that says how much."""

SHOWN_BYTES_MAX: Final = MIB
"""State of one environment that ``show`` tells, as JSON; a field that does not fit is cut, and says so. Nobody reads
more in a terminal, and all others wait while it is written."""

LOG_BYTES_MAX: Final = MIB
"""Lines that ``logs`` tells, the newest; what is older is left out."""

ERRANDS_MAX: Final = 64
"""Commands of one other node that are being done; what it asks for beyond is passed over, and it asks again."""

ANSWERS_MAX: Final = 256
"""Answers to commands of other nodes that are kept, to be given again: the answer may be lost, and it is done once."""

KEPT_ANSWERS_BYTES_MAX: Final = 8 * MIB
"""Of those together, but the newest is kept however long it is: what is asked for again was answered seconds ago. A
state that is shown has up to 1 MiB, so without it 256 of them would stay in memory for ever."""

ASK_AGAIN_S: Final = 2.0
"""How often a command is said again to another node that does not answer."""

COMMAND_S_MAX: Final = 60.0
"""How long a command waits for its answer: a move of a large state over a slow link takes seconds."""

DURABLE_S_MAX: Final = 20.0
"""How long a new environment may wait for the disk before it is given up, and whoever began it is told so."""

LISTING_BYTES_MAX: Final = 4 * MIB
"""What other nodes say before a server knows which journals it has waits, so much of it: they say who runs what."""

STARTING_S_MAX: Final = 3.0
"""How long a command waits for a server that has just started to take up all its environments, before it is told how
far that is. Mostly there are few, and it takes a moment; with as many as there may be it takes minutes."""

WARM_ROUNDS_MAX: Final = 8
"""How often a runner that waits catches up before it counts as ready: where more comes than it applies, it never is."""

WARM_SLICE_S: Final = 0.001
"""How long a runner that is made beforehand is worked on before it rests: others of the same process wait so long."""

WARM_S: Final = 40.0
"""How long it waits: longer than whoever hands over waits for it."""

LOG_LINES_MAX: Final = 1_000
"""Lines of one environment's log in memory; the oldest goes."""

LOGS_MAX: Final = 256
"""Environments whose logs are in memory; the one that began first goes."""

COMMANDS_MAX: Final = 256
"""Commands of one node that wait for their answer; at it another one is refused."""

HANDLER_S_MAX: Final = 4.0
"""A handler that runs longer is ended, and its event counts as failed: others wait for it. Half of it is safe."""

REVISED_S_MAX: Final = 2 * HANDLER_S_MAX
"""The same where history is run through other code: twice as long, for that computer may be slower."""

TURN_S_MAX: Final = 0.05
"""How long one environment may take in one turn of the server's loop and still begin something more: as long as all its
blocks take that may be ahead of the disk. What is left is done in a later turn, and what was done is sealed first."""

REST_S_MAX: Final = 0.25
"""An environment that went on for longer rests for as long as it was over, up to so much: the others use that to finish
what takes several turns, a disk and a network."""

MEMORY_BYTES_MAX: Final = 4 * GIB
"""Address space of the server of environments; what a handler wants beyond is a ``MemoryError`` in it."""

SILENT_S_MAX: Final = 2 * HANDLER_S_MAX + 2.0
"""The server says every second that it turns; after so long without that it is killed, and started again."""

GUEST_RING_BYTES: Final = 256 * KIB
"""Each way between the server and a guest, a power of two: a block's worth of small items; more goes in parts."""

GUEST_MEMORY_BYTES_MAX: Final = GIB
"""Address space of one guest, 130 MiB of it the interpreter's; beyond it is a ``MemoryError`` in the handler."""

GUEST_FILES_MAX: Final = 64
"""Descriptors of a guest while it loads code; afterwards it has one, and can open none."""

GUEST_ANSWER_BYTES_MAX: Final = 16 * MIB
"""What a guest says to one record, as much as a frame to a client holds. Beyond it the handler counts as failed."""

GUEST_STATE_BYTES_MAX: Final = KEPT_SNAPSHOT_BYTES_MAX
"""The state of a guest, as it is kept. A larger one cannot be checkpointed."""

GUEST_OWED_BYTES_MAX: Final = 2 * GUEST_STATE_BYTES_MAX
"""What parties have not confirmed of one guest, which the server keeps as well, to send it again. It is a part of the
state, so a guest that owes so much could not be checkpointed for long. Beyond it an event counts as failed."""

GUEST_OWED_PARCELS_MAX: Final = 1 << 21
"""The same in parcels, 180 bytes each beside what is in it. So many of the smallest make a state of 60 MiB."""

GUEST_NEAR_ASKS: Final = 64
"""After so many questions to a guest it is looked again on which processor the server runs: that takes 2 us."""

GUEST_PATIENCE_S: Final = 0.02
"""How long the server waits for one guest while all others wait, too: twice the time of a disk. Then it goes on
with the others, and comes back when the guest has answered."""

GUEST_ASK_S_MAX: Final = 1.0
"""How long a guest may take to write its state, or to begin with one: 64 MiB in 0.3 s. Then it is killed. The server
waits meanwhile, so a handler that goes on behind its own answer costs all others as much, once."""

GUEST_LOOK_S: Final = 0.002
"""How often a server that waits for a guest looks whether there still is one."""

GUEST_TURN_S: Final = 0.002
"""How often it is looked whether a guest has loaded its code, or has done what is repeated after a restart."""

GUEST_START_S_MAX: Final = 10.0
"""How long the zygote may take to start, and a guest to load its code, with the way back to a state after a failure;
then it counts as failed. Nobody else waits meanwhile."""

GUEST_FIRED_MAX: Final = 65_536
"""Timers in a row that make no event, as many as an environment can set. A guest that names more of them lies."""

COPIED_BYTES_MAX: Final = 4 * MIB
"""State of an environment that is copied: it is in the first block of the copy's journal, and one block has 8 MiB."""

HEADS_S: Final = 5.0
"""How often heads of journals are told to all members: so much of the past a recorder that is taken over can change."""
