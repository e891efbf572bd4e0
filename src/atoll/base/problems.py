# SPDX-License-Identifier: Apache-2.0
"""The catalogue of coded errors: what each means, what to do about it, and the exit status it gives.

``atoll help CODE`` prints an entry offline, and docs/reference/errors.md is generated from here. A test holds every
entry to be raised somewhere. Codes are never reused; A402 is one that was taken out.
A1: this machine and its files. A2: the group. A3: journals. A4: the running node and its traffic. A5: bugs and usage.
A6: environments.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

__all__ = ["PROBLEMS", "ExitStatus", "Explanation", "exit_status", "reference_page"]


class ExitStatus(IntEnum):
    """Exit statuses of the command line. Scripts may rely on them."""

    OK = 0
    FAILURE = 1
    USAGE = 2
    NOT_RUNNING = 3
    DEGRADED = 4
    UNREACHABLE = 5
    REJECTED = 6
    CONFLICT = 7
    INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Explanation:
    """One entry.

    Attributes:
        status: Exit status of a command that ends with it.
        title: What happened, without a full stop.
        meaning: Why it happens and what was left as it was; whole sentences.
        fix: What to do; whole sentences.
    """

    status: ExitStatus
    title: str
    meaning: str
    fix: str


_S = ExitStatus

PROBLEMS: Final[dict[str, Explanation]] = {
    "A101": Explanation(
        _S.FAILURE,
        "the identity file is missing, unreadable or damaged",
        "The file that holds this node's private keys cannot be opened or does not hold keys, or it is gone while the "
        "rest of the state is there. Atoll never makes a new identity over an old one, because the group would see a "
        "stranger.",
        "Check the owner of the file, or restore it from a backup. To start over as a new machine, remove the old one "
        "on another member with `atoll remove NODE`, delete the state directory, and join with a new invitation.",
    ),
    "A102": Explanation(
        _S.FAILURE,
        "the disk is full or cannot be written",
        "Identity, roster and journal must be on disk before they count. The operation was refused and nothing "
        "half-written was left behind.",
        "Free some space, or move the state directory with `--state DIR`, and run the command again.",
    ),
    "A103": Explanation(
        _S.CONFLICT,
        "the state directory is in use by another process",
        "One state directory is one machine of the group. Two processes on it would be two machines with one key.",
        "Use the running node (`atoll status`), end it with `atoll down`, or give this one its own `--state DIR`.",
    ),
    "A104": Explanation(
        _S.REJECTED,
        "the identity file can be read by others",
        "Other users of this machine can read the private keys, so they must be taken as known to them.",
        "If nobody else could log in: `chmod 600` the file. Otherwise remove this machine from the group with "
        "`atoll remove NODE` on another member, and join again as a new one.",
    ),
    "A105": Explanation(
        _S.CONFLICT,
        "the port is in use",
        "Another program, or another node, has the UDP port that this node should listen on.",
        "Choose another with `--listen HOST:PORT`, or `--listen 0.0.0.0:0` for any free one; or end the other program.",
    ),
    "A106": Explanation(
        _S.CONFLICT,
        "the state was written by a newer version",
        "The files in the state directory have a form that this version does not know. They were not touched.",
        "Install the version that wrote them, or a newer one. Going back to an older one is not possible in place.",
    ),
    "A107": Explanation(
        _S.DEGRADED,
        "the clock was set back",
        "A warning of `atoll status`, for ten minutes: the wall clock shows an earlier time than it did before, by a "
        "minute or more. Sessions and paths do not use it, but invitations do: one that was made before may be "
        "refused, or be valid for longer than it says.",
        "Nothing is needed for traffic. Set the clock, ideally by a time service such as chrony, then `atoll invite` "
        "again.",
    ),
    "A108": Explanation(
        _S.FAILURE,
        "the roster on disk is damaged",
        "The signed list of members does not carry valid signatures any more, or the settings do not decode. Nothing "
        "was changed or repaired.",
        "Restore that file from a backup; or move `roster` away and join again with an invitation; the identity stays.",
    ),
    "A109": Explanation(
        _S.USAGE,
        "the path of the state directory is too long",
        "The node's control socket lies in it, and the system limits the length of a socket's path to 107 bytes, the "
        "name of the socket included.",
        "Choose a shorter `--state DIR`.",
    ),
    "A110": Explanation(
        _S.FAILURE,
        "the state directory cannot be used",
        "It cannot be made, entered, locked or written: wrong owner, wrong mode, a read-only or hanging disk, or "
        "something else of that name in its place. What a running node was asked for counts once it can be written.",
        "Choose another with `--state DIR`, or give the directory to the user that runs atoll, with mode 700.",
    ),
    "A111": Explanation(
        _S.FAILURE,
        "the TUN device cannot be had",
        "With `--tun` the whole machine reaches the group's addresses. That needs a network interface, which only root "
        "may make, or who has CAP_NET_ADMIN, and a kernel with TUN; some containers have none, or no IPv6. Nothing was "
        "changed in the machine's routes.",
        "Run `atoll up --tun` as root, or start without it (`atoll up --no-tun`) and use `atoll forward` or `atoll "
        "socks`, which need no rights.",
    ),
    "A112": Explanation(
        _S.FAILURE,
        "the private network cannot be made or entered",
        "`atoll exec` runs a program in a network namespace of its own, which Linux lets every user make unless it is "
        "told not to: user namespaces may be switched off, /dev/net/tun may be closed to users, IPv6 may be off. Or "
        "the node runs as another user.",
        "Change the setting that is named, as root; or use `atoll forward` or `atoll socks`, which need nothing. Where "
        "the whole machine may reach the group, `sudo atoll up --tun` does without.",
    ),
    "A113": Explanation(
        _S.CONFLICT,
        "the metrics port cannot be had",
        "`--metrics` makes the node answer Prometheus over HTTP. Another program, or another node, listens on that TCP "
        "port, the address is not one of this machine, or ports below 1024 are reserved. The choice is kept; the node "
        "does not run without the monitoring that it was told to have.",
        "End the other program, or choose another port with `atoll up --metrics [HOST:]PORT`; with `atoll up --metrics "
        "none` there are no metrics.",
    ),
    "A201": Explanation(
        _S.REJECTED,
        "this is not an invitation",
        "An invitation is one word that begins with `atoll1-` and carries its own checksum. A character is missing, "
        "changed or added.",
        "Copy the whole line that `atoll up` or `atoll invite` printed, without line breaks.",
    ),
    "A202": Explanation(
        _S.REJECTED,
        "this machine belongs to another group",
        "A state directory belongs to one group, and the invitation is for a different one. A group that nobody has "
        "joined yet is simply given up.",
        "To be in both, use a second `--state DIR` and another `--listen` port. To change groups, delete the state "
        "directory after `atoll remove NODE` in the old group.",
    ),
    "A203": Explanation(
        _S.REJECTED,
        "this invitation has expired",
        "Invitations are valid for ten minutes, so that one left in a chat or a shell history is worth nothing.",
        "On a member of the group run `atoll invite`, and paste the new line here.",
    ),
    "A204": Explanation(
        _S.REJECTED,
        "this invitation was used already",
        "Each invitation admits one machine. If that was not you, somebody else joined with it: see `atoll status`.",
        "On a member of the group run `atoll invite` for each machine. Remove a stranger with `atoll remove NODE`.",
    ),
    "A205": Explanation(
        _S.UNREACHABLE,
        "no valid answer came from the inviting node",
        "Nothing came back from any address in the invitation, or not the whole list of members, or not a valid one; "
        "`where` says which. The node may be down, a firewall may drop UDP to it, or it may not know this invitation "
        "any more: a node answers nobody whom it has not invited, so it cannot say so.",
        "Check `atoll status` there, and that its UDP port is open to this machine. If both are well, run `atoll "
        "invite` there, or on another member, and paste the new line here.",
    ),
    "A206": Explanation(
        _S.REJECTED,
        "this machine was removed from the group",
        "A member removed it, and the others do not speak with it any more.",
        "If that was a mistake: delete the state directory and join with a new invitation.",
    ),
    "A207": Explanation(
        _S.CONFLICT,
        "two nodes use the same key",
        "The state directory was copied, or a backup of it was started beside the original. The one that was started "
        "later is refused and ends; the other goes on.",
        "End one of the two for good and delete its state directory; let it join again with a new invitation.",
    ),
    "A208": Explanation(
        _S.CONFLICT,
        "the versions do not fit together",
        "The other side speaks a version of the protocol that this one does not know.",
        "Bring both to the same version: `pip install --upgrade atoll`. Neighbouring versions always fit together.",
    ),
    "A209": Explanation(
        _S.REJECTED,
        "the group is full",
        "Every member measures its path to every other, which is why a group has a largest size.",
        "Remove a machine that is not used any more with `atoll remove NODE`.",
    ),
    "A210": Explanation(
        _S.FAILURE,
        "no such node in this group",
        "The name is not that of a member, as the roster of the node that was asked knows it.",
        "`atoll status` lists the members by name. One that has just joined is known to all within seconds.",
    ),
    "A211": Explanation(
        _S.REJECTED,
        "this cannot be a name",
        "Names of machines and groups are made of a to z, 0 to 9 and inner hyphens, at most 32 characters. One that "
        "another machine of the group has already is no error: the newcomer is shown with a number behind it.",
        "Choose another with `--name NAME`, or `--group-name NAME` for a group.",
    ),
    "A212": Explanation(
        _S.USAGE,
        "another member must be named",
        "A path or a ping leads from one member to another one; the name is that of this node, or the same was given "
        "twice.",
        "Name another member; `atoll status` lists them. A program on this machine is reached at 127.0.0.1.",
    ),
    "A213": Explanation(
        _S.UNREACHABLE,
        "this node has no address to invite to",
        "An invitation names the addresses at which the new machine calls this node. It advertises none, and it found "
        "none on this machine's network interfaces.",
        "Connect the machine to a network, or say where it can be reached: `atoll down`, then `atoll up --advertise "
        "HOST:PORT`.",
    ),
    "A214": Explanation(
        _S.FAILURE,
        "another client is being added",
        "One client is added at a time, because each may need the gateway's key to be sealed for further members.",
        "Run the command again in a second.",
    ),
    "A215": Explanation(
        _S.REJECTED,
        "the name is taken",
        "Members and clients share one space of names, and a name leads to one machine only.",
        "Choose another name. `atoll status` lists the members, `atoll client list` the clients.",
    ),
    "A216": Explanation(
        _S.CONFLICT,
        "this machine serves no gateway and cannot make one",
        "A client knows one key as its peer, and members that were there when a client was last added have it. This "
        "machine has none of those keys, and the group has as many of them as a packet device keeps.",
        "Run `atoll client add` on a machine that has been a member for longer; that gives this one the key as well.",
    ),
    "A301": Explanation(
        _S.CONFLICT,
        "the journal is of another version of the machine",
        "A journal can be replayed only by code that decides as the recording code did.",
        "Replay it with the version of atoll that is named in the journal.",
    ),
    "A302": Explanation(
        _S.FAILURE,
        "the journal is damaged",
        "A record's checksum does not fit. A torn last record is normal after a crash and is left out; this one is not "
        "the last.",
        "Replay up to the record before with `--until N`, or copy the file again from its machine.",
    ),
    "A303": Explanation(
        _S.FAILURE,
        "the replay differs from the recording",
        "The same inputs gave other effects at the named input. Either the code differs from the one that recorded, or "
        "there is a bug: a machine read something that was not an input.",
        "Check that the versions are the same. If they are, please report it and attach the journal.",
    ),
    "A304": Explanation(
        _S.FAILURE,
        "there is no such journal",
        "The file does not exist, cannot be read, or is not a journal.",
        "A node keeps its journals in the directory `journal` of its state directory.",
    ),
    "A305": Explanation(
        _S.REJECTED,
        "the journal comes from elsewhere, and its code is not run",
        "The past of an environment is made anew by running its code again. The code of a journal that is not one of "
        "this node's is a stranger's: it would run here as you, outside of all walls, and could do whatever you can. "
        "Nothing of it was run.",
        "If you trust whoever made it, say `--trust-code`, best as a user or on a machine that has nothing to lose. "
        "`atoll audit verify DIR` checks a journal without running anything.",
    ),
    "A401": Explanation(
        _S.NOT_RUNNING,
        "no node is running here",
        "Nothing answers at the control socket of the state directory.",
        "Start it with `atoll up`; if it uses another state directory, name it with `--state DIR`.",
    ),
    "A403": Explanation(
        _S.FAILURE,
        "the node did not start",
        "Its process ended, or did not become ready in time.",
        "The last lines of `atoll logs` say why.",
    ),
    "A404": Explanation(
        _S.CONFLICT,
        "the local port of a forward cannot be had",
        "Another program listens on it, the address is not one of this machine, or ports below 1024 are reserved.",
        "Choose another local port.",
    ),
    "A405": Explanation(
        _S.REJECTED,
        "another member refused to answer",
        "The member was reached, but it does not know this node as a member, or was asked more than four times within "
        "a second.",
        "Wait a second and ask again; a member that has just joined is known to all within seconds. Or run the command "
        "on that machine.",
    ),
    "A406": Explanation(
        _S.UNREACHABLE,
        "no answer in time",
        "Neither the direct path nor any path through another member brought an answer.",
        "`atoll status --json` shows when the node was last heard, and `atoll why NODE` what was tried.",
    ),
    "A407": Explanation(
        _S.FAILURE,
        "no such forward",
        "No forward of this node has that number. Forwards end with the node, and a number is not used again while it "
        "runs.",
        "`atoll forward list` shows them.",
    ),
    "A430": Explanation(
        _S.REJECTED,
        "the proxy leads to members of the group only",
        "A program asked `atoll socks` for a name or an address of another network. The proxy resolves the overlay's "
        "names and no others, and never hands anything on to the internet.",
        "Name a member: `NODE`, `NODE.atoll`, `NODE.GROUP.atoll` or its overlay address. Tell the program to use the "
        "proxy for those only, for example with `NO_PROXY`.",
    ),
    "A431": Explanation(
        _S.FAILURE,
        "nothing listens on that port of the member",
        "The member was reached, and refused the connection: no program listens on that TCP port of its 127.0.0.1.",
        "Start the service there, let it listen on 127.0.0.1 or on all addresses, or name the port that it has.",
    ),
    "A432": Explanation(
        _S.REJECTED,
        "the member does not let this node reach that port",
        "The member was reached, and its rules refuse this node that port.",
        "Ask whoever runs that member.",
    ),
    "A433": Explanation(
        _S.USAGE,
        "this is no request that the proxy takes",
        "The proxy takes SOCKS5 without a password and HTTP `CONNECT HOST:PORT`; a header has at most 8 KiB and 64 "
        "lines. A program that sends plain `GET http://` to an HTTP proxy does not tunnel.",
        "Make the program tunnel (`curl --proxytunnel`), or give it the proxy as `socks5h://`.",
    ),
    "A434": Explanation(
        _S.USAGE,
        "the proxy would be open to other machines",
        "Whoever can connect to the proxy reaches every member of the group, and this machine's own loopback, without "
        "any key. So it listens on a loopback address, unless it is said that anyone may use it.",
        "Listen on 127.0.0.1 or ::1; or add `--anyone`, behind a firewall.",
    ),
    "A499": Explanation(
        _S.FAILURE,
        "the node could not do it",
        "The node met a limit or a failure that has no code of its own; the sentence names it.",
        "The last lines of `atoll logs` say more.",
    ),
    "A500": Explanation(
        _S.FAILURE,
        "atoll met a bug of its own",
        "Something happened that nobody expected. A node that meets it ends, because what it decides after that could "
        "not be trusted; its identity and its membership are kept.",
        "Report it with node.log and the journal directory. If the node has ended, start it again with `atoll up`.",
    ),
    "A501": Explanation(
        _S.USAGE,
        "the command or the configuration is wrong",
        "An option, an argument, an environment variable or a key of atoll.toml is unknown or has a wrong value. "
        "Unknown keys are refused, because a misspelt setting that is ignored is worse than none.",
        "`atoll COMMAND --help` lists the options; `atoll config show --origin` prints each setting and its origin.",
    ),
}
_APPLICATIONS: Final[dict[str, Explanation]] = {
    "A601": Explanation(
        _S.USAGE,
        "the application's class cannot be run",
        "A field of an application is its state, so it needs an annotated type that can be written down, and a "
        "default. Each type of tuple has one handler, and names of types are unique.",
        "Mend the class as the error says; `docs/howto/environments.md` shows one.",
    ),
    "A602": Explanation(
        _S.FAILURE,
        "the environment cannot begin",
        "Its first handler raised, or a field that was given does not fit. Nothing was left behind.",
        "Mend the handler of `Started`, or the fields given with `--with`.",
    ),
    "A603": Explanation(
        _S.USAGE,
        "the code cannot be read or loaded",
        "The file is missing, is no Python, is too large, or raises or ends its process when it is imported.",
        "Run it with `python -X faulthandler FILE` first.",
    ),
    "A604": Explanation(
        _S.USAGE,
        "it is not clear which application is meant",
        "The file has no class with the base `atoll.App`, or several.",
        "Name one: `atoll run FILE.py:App`.",
    ),
    "A605": Explanation(
        _S.FAILURE,
        "packages that the application needs are not installed here",
        "Code goes with an environment, installed packages do not: each node that may run it must have them.",
        "Install them into the Python that runs atoll there; the error has the command.",
    ),
    "A606": Explanation(
        _S.CONFLICT,
        "an environment has this name already",
        "Names are unique in a group, because programs find each other by them.",
        "Choose another with `--name`, or end the other one with `atoll env stop`. If only a machine that is lost for "
        "good keeps it, `atoll remove` of that one frees the name; the error says so.",
    ),
    "A607": Explanation(
        _S.FAILURE,
        "the state cannot be written, or does not fit the code",
        "A checkpoint, a move or an upgrade writes the whole state down. A coroutine that waits, or a field that holds "
        "something that is no data, is in the way; or the new code has no migration. The environment runs as before.",
        "Mend the application as the error says.",
    ),
    "A608": Explanation(
        _S.FAILURE,
        "the environment was not moved",
        "The other node did not take it in time, or cannot. It runs where it ran.",
        "`atoll status` says how that node is; try again.",
    ),
    "A609": Explanation(
        _S.FAILURE,
        "there is no such environment",
        "No node of the group runs one of that name, as far as this node has heard.",
        "`atoll env list` shows what there is; one that began a moment ago is known everywhere in some seconds.",
    ),
    "A610": Explanation(
        _S.FAILURE,
        "the environment runs, or its journal is kept, on another node",
        "A command is carried out where the environment runs; its past is looked at where its journal is kept. A node "
        "that gave its copy away keeps only the empty directory.",
        "Run the command there; `atoll env list` says where.",
    ),
    "A611": Explanation(
        _S.UNREACHABLE,
        "environments do not run on this node now",
        "The process that runs them, or the one that records them, has ended or is being started again. Where it has "
        "just started, it says how many are taken up so far: their journals are read since the last checkpoint, which "
        "takes minutes where there is much. Those that are taken up run.",
        "Try again in a second; if it stays so, `atoll logs` says why.",
    ),
    "A612": Explanation(
        _S.REJECTED,
        "this node may not do that to the environment",
        "The node that runs it takes commands of the node that began it and of those that keep its journal.",
        "Run the command on one of them; `atoll env list` names them.",
    ),
    "A613": Explanation(
        _S.FAILURE,
        "no process can be made for handlers",
        "The process level needs Linux on x86_64 or aarch64 whose kernel lets a process give up its rights (seccomp), "
        "and memory and descriptors for one more process. Code that changes its process while it is loaded can be in "
        "the way, too.",
        "`atoll run --level inline` runs handlers in the process that all environments share; trust the code.",
    ),
    "A614": Explanation(
        _S.REJECTED,
        "handlers do what a replay cannot repeat",
        "A program survives its process and moves because its journal can be applied again. What a handler reads from "
        "a clock, a file, chance or the order of a set is not in the journal, so it would go on differently. Nothing "
        "was run.",
        "Use what the finding names, such as `ctx.now()` or `ctx.random`. A place that is right as it is, such as one "
        "that no handler calls, is allowed on its line: `# atoll: allow RULE, reason`.",
    ),
}
PROBLEMS.update(_APPLICATIONS)


def exit_status(code: str) -> ExitStatus:
    """Return the exit status of a code; FAILURE for one that this version does not know."""
    known = PROBLEMS.get(code)
    return ExitStatus.FAILURE if known is None else known.status


def reference_page() -> str:
    """Return docs/reference/errors.md."""
    lines = [
        "# Errors",
        "",
        "Every error that atoll shows has a code, one sentence, the evidence (`where`) and a remedy (`fix`).",
        "`atoll help CODE` prints these entries offline. This page is generated from `src/atoll/base/problems.py`;",
        "`python -m atoll.base.problems > docs/reference/errors.md` writes it.",
        "",
        "| exit status | meaning |",
        "|---|---|",
        *(f"| {status.value} | {status.name.lower().replace('_', ' ')} |" for status in ExitStatus),
    ]
    for code, entry in PROBLEMS.items():
        lines += ["", f"## {code}: {entry.title}", "", f"Exit status {entry.status.value}. {entry.meaning}", ""]
        lines += [f"**Fix.** {entry.fix}"]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(reference_page(), end="")  # noqa: T201 -- the page is the output.
