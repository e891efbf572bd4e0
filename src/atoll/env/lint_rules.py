# SPDX-License-Identifier: Apache-2.0
"""What a handler must not touch, and what to use instead: the rules and the names they are about.

Two readers share it, so that they give the same advice: ``env.lint`` looks at the source before it runs, and
``domain.guard`` looks at the calls while it runs.
"""

from typing import Final, NamedTuple

__all__ = ["READS_WITHOUT", "RULES", "Rule", "Touch", "reference_page", "rule_of_call", "rule_of_name"]


class Rule(NamedTuple):
    """One rule.

    Attributes:
        word: Stable name, as in a finding and in an allowance.
        finds: What is found, without a full stop.
        why: Why a replay could differ, a clause without a full stop.
        instead: What to use; completes "use ...".
    """

    word: str
    finds: str
    why: str
    instead: str


RULES: Final = {
    rule.word: rule
    for rule in (
        Rule(
            "clock",
            "a clock is read: `time.time()`, `time.monotonic()`, `datetime.now()`, `date.today()` and their kin",
            "a replay would read another time",
            "ctx.now_ns or ctx.now()",
        ),
        Rule(
            "sleep",
            "the handler waits: `time.sleep()`, `asyncio.sleep()`",
            "nothing else can run meanwhile, and time does not pass within an event",
            "ctx.after, which brings a later event",
        ),
        Rule(
            "random",
            "chance that is not in the journal: functions of `random`, `random.Random()` without a seed, `secrets`, "
            "`uuid.uuid1()`, `uuid.uuid4()`, `os.urandom()`",
            "a replay would draw other numbers",
            "ctx.random, ctx.uuid() or ctx.token()",
        ),
        Rule(
            "file",
            "files are used: `open()`, reading and writing with `pathlib`, `os.listdir()`, `shutil`, `tempfile`, "
            "`input()`",
            "a file is not part of the state, and not there on the next machine",
            "tuples (ctx.put, ctx.read, ctx.take), or read the file once when the module is imported",
        ),
        Rule(
            "network",
            "the network is used: `socket`, `urllib.request`, `http.client`, `requests`, `httpx` and their kin",
            "a replay would ask again and hear something else",
            "ctx.send or ctx.call to a party that asks the network and sends what it heard",
        ),
        Rule(
            "process",
            "other programs are started: `subprocess`, `os.system()`, `os.fork()`, `multiprocessing`",
            "a replay would start them again, and their answers are not in the journal",
            "ctx.call to a client that runs the program and sends its result",
        ),
        Rule(
            "thread",
            "something is to run at the same time: `threading`, `concurrent.futures`, tasks and loops of `asyncio`",
            "who comes first differs from run to run",
            "ctx.send to oneself or ctx.after: a handler runs alone and to its end",
        ),
        Rule(
            "host",
            "the machine is asked about itself: `os.environ`, `os.getpid()`, `os.cpu_count()`, `platform`",
            "the next machine answers differently",
            "a tuple or a field of the state that says it",
        ),
        Rule(
            "global",
            "`global x`, and `x` is assigned",
            "what is outside of `self` is in no snapshot, and all environments of the process share it",
            "a declared field of the App: self.x",
        ),
        Rule(
            "module-state",
            "a name of the module is changed from a function: `CACHE[k] = v`, `CACHE.append(v)`, `next(COUNTER)`",
            "what is outside of `self` is in no snapshot, and all environments of the process share it",
            "a declared field of the App: self.cache",
        ),
        Rule(
            "class-state",
            "a list, dict or set in the body of an App without an annotation",
            "it belongs to the class: it is in no snapshot, and all environments of the class share it",
            "an annotated field, such as `bids: list[int] = []`, or a tuple if it never changes",
        ),
        Rule(
            "undeclared",
            "`self.x` is assigned, and the App does not declare `x`",
            "only declared fields are in a snapshot",
            "an annotated field in the body of the class, such as `x: int = 0`",
        ),
        Rule(
            "set-order",
            "the order of a set is used: a loop, `list()`, `iter()`, `join()` or `pop()`",
            "the order of a set depends on its past and on the process, and a restored one may have another",
            "sorted(...), or a dict, which keeps the order of insertion",
        ),
        Rule(
            "hash",
            "`hash(x)` outside of `__hash__`",
            "its value depends on the process and on the version of Python",
            "a digest such as zlib.crc32 or hashlib.sha256 of the bytes",
        ),
        Rule(
            "id",
            "`id(x)` is used as a value",
            "it is an address in memory, and other in each run",
            "a counter in the state, ctx.uuid(), or `is` to compare",
        ),
        Rule(
            "syntax",
            "the file cannot be read as Python",
            "nothing else can be said about it",
            "what the interpreter accepts: `python -m py_compile FILE` shows the place",
        ),
    )
}
"""By word, in the order of the reference."""


class Touch(NamedTuple):
    """A name or call that a rule is about. ``what`` is how a person would write it, such as ``time.time()``."""

    rule: str
    what: str


_CLOCKS: Final = (
    *(f"time.{name}{unit}" for name in ("time", "monotonic", "perf_counter") for unit in ("", "_ns")),
    *(f"time.{name}{unit}" for name in ("process_time", "thread_time", "clock_gettime") for unit in ("", "_ns")),
    *(f"datetime.datetime.{name}" for name in ("now", "utcnow", "today")),
    "datetime.date.today",
    "timeit.default_timer",
)
_DRAWS: Final = (
    *("betavariate", "binomialvariate", "choice", "choices", "expovariate", "gammavariate", "gauss", "getrandbits"),
    *("getstate", "lognormvariate", "normalvariate", "paretovariate", "randbytes", "randint", "random", "randrange"),
    *("sample", "seed", "setstate", "shuffle", "triangular", "uniform", "vonmisesvariate", "weibullvariate"),
)
_FILES: Final = (
    *("access", "chdir", "chmod", "chown", "getcwd", "link", "listdir", "lstat", "makedirs", "mkdir", "open", "read"),
    *("readlink", "remove", "removedirs", "rename", "renames", "replace", "rmdir", "scandir", "stat", "statvfs"),
    *("symlink", "sync", "truncate", "unlink", "utime", "walk", "write", "fwalk", "fsync", "fdatasync", "pipe"),
    *("path.exists", "path.getatime", "path.getctime", "path.getmtime", "path.getsize", "path.isdir", "path.isfile"),
    *("path.abspath", "path.expanduser", "path.islink", "path.lexists", "path.realpath", "path.samefile"),
)
_STARTS: Final = (
    *("abort", "execl", "execle", "execlp", "execlpe", "execv", "execve", "execvp", "execvpe", "_exit"),
    *("fork", "forkpty", "kill", "killpg", "popen", "posix_spawn", "posix_spawnp", "spawnl", "spawnle", "spawnlp"),
    *("spawnlpe", "spawnv", "spawnve", "spawnvp", "spawnvpe", "startfile", "system", "wait", "waitpid"),
)
_HOST: Final = (
    *("cpu_count", "environ", "environb", "getenv", "getenvb", "getgid", "getlogin", "getloadavg", "getpid"),
    *("getppid", "getuid", "putenv", "sched_getaffinity", "times", "uname", "unsetenv", "process_cpu_count"),
)

NAMES: Final = {
    **dict.fromkeys(_CLOCKS, "clock"),
    "time.sleep": "sleep",
    "asyncio.sleep": "sleep",
    **dict.fromkeys((f"random.{name}" for name in _DRAWS), "random"),
    **dict.fromkeys(("random.SystemRandom", "os.urandom", "os.getrandom"), "random"),
    **dict.fromkeys((f"uuid.uuid{version}" for version in (1, 4, 6, 7)), "random"),
    "uuid.getnode": "host",
    **dict.fromkeys(("builtins.open", "builtins.input", "io.open", "io.FileIO", "codecs.open", "gzip.open"), "file"),
    **dict.fromkeys(("bz2.open", "lzma.open", "shelve.open", "dbm.open", "sqlite3.connect"), "file"),
    **dict.fromkeys((f"os.{name}" for name in _FILES), "file"),
    **dict.fromkeys((f"os.{name}" for name in _STARTS), "process"),
    **dict.fromkeys((f"os.{name}" for name in _HOST), "host"),
    **dict.fromkeys(("asyncio.open_connection", "asyncio.start_server"), "network"),
    **dict.fromkeys(("asyncio.create_subprocess_exec", "asyncio.create_subprocess_shell", "pty.spawn"), "process"),
    "getpass.getuser": "host",
}
"""Names that count wherever they are used inside a function, called or handed on (``key=random.random``)."""

FAMILIES: Final = {
    "secrets": "random",
    **dict.fromkeys(("shutil", "tempfile", "glob", "fileinput"), "file"),
    **dict.fromkeys(("socket", "ssl", "socketserver", "urllib.request", "http.client", "http.server"), "network"),
    **dict.fromkeys(("ftplib", "smtplib", "imaplib", "poplib", "xmlrpc.client", "xmlrpc.server"), "network"),
    **dict.fromkeys(("requests", "httpx", "aiohttp", "urllib3", "websockets"), "network"),
    **dict.fromkeys(("subprocess", "multiprocessing"), "process"),
    **dict.fromkeys(("threading", "_thread", "concurrent.futures", "asyncio"), "thread"),
    **dict.fromkeys(("platform", "resource", "psutil"), "host"),
}
"""Modules of which each call counts; naming their constants, types and exceptions does not."""

PURE: Final = frozenset(
    {
        *("secrets.compare_digest", "glob.escape", "glob.translate", "subprocess.list2cmdline"),
        *("socket.htonl", "socket.htons", "socket.inet_aton", "socket.inet_ntoa", "socket.inet_ntop"),
        *("socket.inet_pton", "socket.ntohl", "socket.ntohs", "httpx.URL", "httpx.Headers", "httpx.QueryParams"),
        *("urllib.request.pathname2url", "urllib.request.url2pathname", "asyncio.iscoroutinefunction"),
        *("asyncio.iscoroutine", "asyncio.CancelledError", "asyncio.TimeoutError"),
    }
)
"""Calls into those modules that are functions of their arguments."""

READS_WITHOUT: Final = {
    "time.localtime": ("clock", 1),
    "time.gmtime": ("clock", 1),
    "time.ctime": ("clock", 1),
    "time.asctime": ("clock", 1),
    "time.strftime": ("clock", 2),
    "random.Random": ("random", 1),
}
"""Calls that count when they get fewer arguments than this, or None for the last of them."""

FILE_METHODS: Final = frozenset(
    {
        *("open", "read_text", "read_bytes", "write_text", "write_bytes", "exists", "is_file", "is_dir", "iterdir"),
        *("glob", "rglob", "walk", "mkdir", "rmdir", "unlink", "touch", "rename", "replace", "stat", "lstat"),
        *("resolve", "absolute", "chmod", "symlink_to", "hardlink_to", "samefile", "readlink", "owner", "expanduser"),
        *("cwd", "home"),
    }
)
"""Methods of ``pathlib.Path`` that look at the disk; the rest only computes names."""


def rule_of_name(name: str) -> Touch | None:
    """Return what using this full name inside a function touches, such as ``time.time``; None: nothing."""
    rule = NAMES.get(name)
    if rule is None:
        return None
    short = name.removeprefix("builtins.")
    return Touch(rule, short if name.startswith("os.environ") else f"{short}()")


def rule_of_call(name: str, given: int, *, last_is_none: bool) -> Touch | None:
    """Return what calling this full name touches beyond using it; None: nothing.

    Args:
        name: Such as ``socket.create_connection``.
        given: Number of arguments.
        last_is_none: The last of them is the constant None.
    """
    reads = READS_WITHOUT.get(name)
    if reads is not None:
        rule, least = reads
        missing = given < least or (given == least and last_is_none)
        return Touch(rule, f"{name}() without {'a seed' if rule == 'random' else 'a time'}") if missing else None
    if name in PURE or name in NAMES:
        return None
    module = name.rpartition(".")[0]
    while module:
        if module in FAMILIES:
            return Touch(FAMILIES[module], f"{name}()")
        module = module.rpartition(".")[0]
    return None


def reference_page() -> str:
    """Return docs/reference/lint.md."""
    lines = [
        "# What a handler must not touch",
        "",
        "A handler gets a tuple and `ctx`, and changes `self`. What it does must follow from those three alone: then",
        "its journal replays to the same state, on this machine and on the next. Two readers watch that: one reads the",
        "source of an application before it runs, and one watches handlers of the inline level while they run and",
        "raises `AmbientError`. Both name what was touched and what to use instead. They catch honest mistakes and are",
        "no security boundary: code that you do not trust runs at the process level or below.",
        "",
        "Judged is what can run inside a handler: functions and methods. What a module does when it is imported is",
        'not, nor is what only `if __name__ == "__main__":` leads to. A finding that is right as it is, is allowed on',
        "its line:",
        "",
        "```python",
        "SEEN.add(key)  # atoll: allow module-state, counts for the log only",
        "```",
        "",
        "| rule | what is found | why | instead |",
        "|---|---|---|---|",
        *(f"| `{rule.word}` | {rule.finds} | {rule.why} | {rule.instead} |" for rule in RULES.values()),
        "",
        "While handlers run, `logging`, warnings and tracebacks may read the clock and write files, since nothing of",
        "it comes back into the state. So may a module that is imported for the first time, and time zones are looked",
        "up in their files.",
        "",
        "This page is generated from `src/atoll/env/lint_rules.py`;",
        "`python -m atoll.env.lint_rules > docs/reference/lint.md` writes it.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(reference_page(), end="")  # noqa: T201 -- the page is the output.
