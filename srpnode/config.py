"""Reads and validates srpnode.toml and its drop-ins. Every error is one line: FILE:LINE: key: reason."""

import dataclasses
import datetime
import difflib
import ipaddress
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import toml

from srpnode import schema
from srpnode.schema import Access, Config, Entry, Key, Listen, Peer

Where = tuple[str | int, ...]  # ("limits", "peers") or ("listen", 0, "port")
FILE_MAX = 4_000_000  # bytes; no configuration is that long
RULES_MAX = 256  # of a kind, in the core
SOCKET_PATH_MAX = 107  # bytes, sockaddr_un


class ConfigError(Exception):
    """The configuration is refused; `problems` are lines of the form FILE:LINE: key: reason."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclasses.dataclass(frozen=True, slots=True)
class Loaded:
    """A valid configuration and where it came from."""

    config: Config
    files: tuple[str, ...]  # in the order of reading; empty: embedded defaults


def load(path: str | None) -> Loaded:
    """The configuration in `path` and its drop-ins (PATH.d/*.toml).

    None means the default file, or embedded defaults when that does not exist: then state and control socket stand
    under .srpnode/ of the working directory. Raises ConfigError.
    """
    if path is None:
        if not Path(schema.DEFAULT_FILE).exists():
            return Loaded(embedded(), ())
        path = schema.DEFAULT_FILE
    merged = _Merged()
    merged.read(path)
    for drop_in in _drop_ins(path):
        merged.read(drop_in)
    return Loaded(_Validator(merged).config(), tuple(merged.files))


def embedded() -> Config:
    """What runs without a file: the defaults, but nothing outside the working directory."""
    home = Path.cwd() / ".srpnode"
    config = Config(state_dir=str(home / "state"), listen=schema.default_listen())
    config.control.socket = str(home / "control.sock")
    return config


def _drop_ins(path: str) -> list[str]:
    directory = Path(path + ".d")
    try:
        return sorted(str(item) for item in directory.glob("*.toml"))
    except OSError as error:
        raise ConfigError([f"{directory}:1: file: cannot be listed ({error.strerror})"]) from None


def changed(old: Config, new: Config) -> tuple[list[str], list[str]]:
    """Keys that differ: (those a running node can take over, those that need a restart), as table.key."""
    apply_now: list[str] = []
    restart: list[str] = []

    def compare(prefix: str, table: type, one: Any, other: Any) -> None:
        for entry in schema.entries(table):
            if getattr(one, entry.name) != getattr(other, entry.name):
                (restart if entry.known.restart else apply_now).append(prefix + entry.name)

    compare("", Config, old, new)
    for name, table in schema.TABLES.items():
        compare(name + ".", table, getattr(old, name), getattr(new, name))
    if len(old.listen) != len(new.listen):
        restart.append("listen")
    else:
        for one, other in zip(old.listen, new.listen, strict=True):
            compare(f"listen.{one.name}.", Listen, one, other)
    if old.peer != new.peer:
        restart.append("peer")
    return apply_now, restart


def merge_reloadable(running: Config, new: Config) -> None:
    """Gives `running` the values of `new` for every key that needs no restart."""

    def take(table: type, into: Any, source: Any) -> None:
        for entry in schema.entries(table):
            if not entry.known.restart:
                setattr(into, entry.name, getattr(source, entry.name))

    take(Config, running, new)
    for name, table in schema.TABLES.items():
        take(table, getattr(running, name), getattr(new, name))
    if [item.name for item in running.listen] == [item.name for item in new.listen]:
        for into, source in zip(running.listen, new.listen, strict=True):
            take(Listen, into, source)


class _Merged:
    """Raw tables of all files, and the file and line that each key came from."""

    def __init__(self) -> None:
        self.tables: dict[str, Any] = {}
        self.origins: dict[Where, str] = {}  # "FILE:LINE"
        self.files: list[str] = []

    def read(self, path: str) -> None:
        """Adds one file; what it says replaces what earlier files said. Raises ConfigError."""
        text = _text(path)
        tables = _parse(path, text)
        lines = key_lines(text)
        self.files.append(path)
        for name, value in tables.items():
            if isinstance(value, dict) and isinstance(self.tables.get(name), dict):
                self.tables[name].update(value)
                replaced: list[Where] = [(name, inner) for inner in value]
            else:
                self.tables[name] = value
                replaced = [(name,)]
            for where in replaced:
                for old in [known for known in self.origins if known[: len(where)] == where]:
                    del self.origins[old]
        for place, line in lines.items():
            self.origins[place] = f"{path}:{line}"

    def origin(self, where: Where) -> str:
        """FILE:LINE of a key; of the table around it when the key stands inside an inline value."""
        for length in range(len(where), 0, -1):
            if where[:length] in self.origins:
                return self.origins[where[:length]]
        wanted = str(where[-1])  # the toml package takes `a = 1 b = 2` for a key of that name
        for known, origin in self.origins.items():
            if known[:-1] == where[:-1] and wanted.startswith(str(known[-1])):
                return origin
        return f"{self.files[-1] if self.files else schema.DEFAULT_FILE}:1"


def _text(path: str) -> str:
    try:
        with open(path, "rb") as file:
            data = file.read(FILE_MAX + 1)
    except OSError as error:
        raise ConfigError([f"{path}:1: file: cannot be read ({error.strerror})"]) from None
    if len(data) > FILE_MAX:
        raise ConfigError([f"{path}:1: file: longer than {FILE_MAX} bytes"])
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError([f"{path}:{line}: file: not UTF-8 text"]) from None


def _parse(path: str, text: str) -> dict[str, Any]:
    try:
        return toml.loads(text)
    except Exception as error:  # the toml package lets IndexError, AttributeError and others escape
        line = getattr(error, "lineno", None) or _failing_line(text, type(error))
        reason = " ".join(str(getattr(error, "msg", "") or "not valid TOML").split()).rstrip(".")
        if reason.startswith("What? "):  # its words for a table given twice
            reason = "table given twice"
        elif reason.startswith("invalid literal"):
            reason = "not a value: " + reason.partition(": ")[2]
        named = [_dotted(where) for where, at in _statements(text) if at == line]
        raise ConfigError([f"{path}:{line}: {(named and named[-1]) or 'file'}: {reason}"]) from None


def _failing_line(text: str, kind: type[Exception]) -> int:
    """The first line whose addition makes the parser fail the same way; for errors that carry no line."""
    lines = text.splitlines(keepends=True)
    for count in range(1, min(len(lines), 2_000) + 1):
        try:
            toml.loads("".join(lines[:count]))
        except Exception as error:
            if type(error) is kind:
                return count
    return 1


_WORD = re.compile(r"\s*(?:\"((?:[^\"\\\n]|\\.)*)\"|'([^'\n]*)'|([A-Za-z0-9_-]+))\s*")


def key_lines(text: str) -> dict[Where, int]:
    """Line of every key and table header of a TOML text, the first of each."""
    found: dict[Where, int] = {}
    for where, line in _statements(text):
        found.setdefault(where, line)
    return found


def _dotted(where: Where) -> str:
    return ".".join(part for part in where if isinstance(part, str))


def _statements(text: str) -> Iterator[tuple[Where, int]]:
    """(key or header, line) in the order of the text; tolerant, because it also serves messages about broken files."""
    counts: dict[Where, int] = {}  # elements of each array of tables so far
    table: Where = ()
    position, line = 0, 1
    while position < len(text):
        end = text.find("\n", position)
        end = len(text) if end < 0 else end
        start = text[position:end].lstrip()
        if start.startswith("["):
            double = start.startswith("[[")
            words, _ = _words(start[2 if double else 1 :])
            if words:
                table = _inside(tuple(words), counts)
                if double:
                    counts[table] = counts.get(table, -1) + 1
                    table = (*table, counts[table])
                yield table, line
        elif start and not start.startswith("#"):
            words, used = _words(start)
            if words:
                yield (*table, *words), line
            after = position + (len(text[position:end]) - len(start)) + used
            end = _value_end(text, after)
        line += text.count("\n", position, end + 1)
        position = end + 1


def _words(text: str) -> tuple[list[str], int]:
    """Dotted key at the start of `text`, and how many characters it takes."""
    words: list[str] = []
    at = 0
    while match := _WORD.match(text, at):
        words.append(next(group for group in match.groups() if group is not None))
        at = match.end()
        if text[at : at + 1] != ".":
            break
        at += 1
    return words, at


def _inside(words: Where, counts: dict[Where, int]) -> Where:
    """[listen.x] means the last element of [[listen]]."""
    path: Where = ()
    for place, word in enumerate(words):
        path = (*path, word)
        if path in counts and place + 1 < len(words):
            path = (*path, counts[path])
    return path


def _value_end(text: str, position: int) -> int:
    """Position of the newline (or end) that ends the value: strings, brackets and comments may hold others."""
    depth = 0
    while position < len(text):
        char = text[position]
        if char in "\"'":
            quotes = char * 3 if text.startswith(char * 3, position) else char
            position += len(quotes)
            while position < len(text) and not text.startswith(quotes, position):
                if len(quotes) == 1 and text[position] == "\n":
                    return position
                position += 2 if char == '"' and text[position] == "\\" else 1
            position += len(quotes)
            continue
        if char == "#":
            newline = text.find("\n", position)
            position = len(text) if newline < 0 else newline
            continue
        if char in "[{":
            depth += 1
        elif char in "]}":
            depth -= 1
        elif char == "\n" and depth <= 0:
            return position
        position += 1
    return position


class _Validator:
    """Turns raw tables into a Config, collecting every problem before it gives up."""

    def __init__(self, merged: _Merged) -> None:
        self.merged = merged
        self.problems: list[str] = []

    def config(self) -> Config:
        """The validated configuration. Raises ConfigError with all problems, in the order of files and lines."""
        config = Config()
        top = {entry.name for entry in schema.entries(Config)}
        for name, value in self.merged.tables.items():
            if name in schema.TABLES:
                self.table((name,), schema.TABLES[name], value, getattr(config, name))
            elif name in schema.ARRAYS:
                setattr(config, name, self.array(name, value))
            elif name not in top:
                self.unknown((name,), Config, [*top, *schema.TABLES, *schema.ARRAYS])
        self.keys((), Config, {name: value for name, value in self.merged.tables.items() if name in top}, config)
        if "listen" not in self.merged.tables:
            config.listen = schema.default_listen()
        self.listeners(config.listen)
        self.peers(config.peer)
        self.access(config.access)
        if self.problems:
            raise ConfigError(sorted(self.problems, key=_by_line))
        return config

    def problem(self, where: Where, reason: str) -> None:
        self.problems.append(f"{self.merged.origin(where)}: {_dotted(where)}: {reason}")

    def unknown(self, where: Where, table: type, known: list[str]) -> None:
        word = str(where[-1])
        near = difflib.get_close_matches(word, known, 1, 0.0)
        elsewhere = [
            f"{name}.{entry.name}"
            for name, other in {"": Config, **schema.TABLES, **schema.ARRAYS}.items()
            for entry in schema.entries(other)
            if entry.name == word and other is not table
        ]
        here = _dotted((*where[:-1], near[0]))
        nearest = elsewhere[0].lstrip(".") if elsewhere else here
        self.problem(where, f"unknown key; the nearest known one is {nearest}")

    def array(self, name: str, value: Any) -> list[Any]:
        table = schema.array_type(name)
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            self.problem((name,), f"must be tables: [[{name}]]")
            return []
        result = []
        for position, item in enumerate(value):
            made = table()
            self.table((name, position), table, item, made)
            result.append(made)
        return result

    def table(self, where: Where, table: type, value: Any, into: Any) -> None:
        if not isinstance(value, dict):
            self.problem(where, f"must be a table: [{where[0]}]")
            return
        known = {entry.name for entry in schema.entries(table)}
        for name in value:
            if name not in known:
                self.unknown((*where, name), table, sorted(known))
        self.keys(where, table, value, into)

    def keys(self, where: Where, table: type, values: dict[str, Any], into: Any) -> None:
        for entry in schema.entries(table):
            if entry.name in values:
                value, reason = self.checked(entry, values[entry.name])
                if reason:
                    self.problem((*where, entry.name), reason)
                else:
                    setattr(into, entry.name, value)
            elif entry.known.required:
                self.problem((*where, entry.name), "missing")

    def checked(self, entry: Entry, value: Any) -> tuple[Any, str]:
        """(value, "") or (None, what is wrong)."""
        known = entry.known
        if entry.kind is float and type(value) is int:
            pass  # 30 for 30.0
        elif type(value) is not entry.kind or not all(isinstance(item, str) for item in _items(value)):
            return None, f"must be {schema.TYPE_NAMES[entry.kind]}, not {_shown(value)}"
        if known.low is not None and known.high is not None and not known.low <= value <= known.high:
            return None, f"must be from {schema.number(known.low)} to {schema.number(known.high)}, not {value}"
        if known.choices and value not in known.choices:
            near = difflib.get_close_matches(value, known.choices, 1, 0.6)
            hint = f"; did you mean {near[0]}?" if near else ""
            return None, f"must be one of {', '.join(known.choices)}, not {_shown(value)}{hint}"
        return _read_form(known, value)

    def listeners(self, listen: list[Listen]) -> None:
        """Fills in what follows from the position; refuses two identities with one name or one socket."""
        if not listen:
            if not self.problems:
                self.problem(("listen",), "at least one is needed")
            return
        if len(listen) > schema.LISTEN_MAX:
            self.problem(("listen", schema.LISTEN_MAX), f"more than {schema.LISTEN_MAX}")
        names: dict[str, str] = {}
        sockets: list[tuple[str, int, str]] = []
        for position, item in enumerate(listen):
            schema.complete(item, position)
            if item.name in names:
                self.problem(("listen", position, "name"), f"{item.name} is also the name of {names[item.name]}")
            names[item.name] = f"[[listen]] number {position + 1}"
            for what, port in (("port", item.port), ("probe_port", item.probe_port)):
                for address, taken, user in sockets:
                    if port == taken and (address == item.address or "0.0.0.0" in (address, item.address)):
                        self.problem(("listen", position, what), f"{port} is already the {user}")
                sockets.append((item.address, port, f"{what} of {item.name}"))

    def access(self, access: Access) -> None:
        """The core holds so many rules; a cluster is either allowed or denied."""
        for name in ("prefixes", "clusters"):
            allow, deny = getattr(access, f"allow_{name}"), getattr(access, f"deny_{name}")
            if len(allow) + len(deny) > RULES_MAX:
                self.problem(("access", f"deny_{name}"), f"more than {RULES_MAX} rules together with allow_{name}")
        for cluster in set(access.allow_clusters) & set(access.deny_clusters):
            self.problem(("access", "deny_clusters"), f"{cluster} is also in allow_clusters")

    def peers(self, peers: list[Peer]) -> None:
        seen: dict[str, int] = {}
        for position, peer in enumerate(peers):
            if peer.peer_id and peer.peer_id in seen:
                self.problem(("peer", position, "peer_id"), f"also that of [[peer]] number {seen[peer.peer_id]}")
            seen[peer.peer_id] = position + 1


def _by_line(problem: str) -> tuple[str, int]:
    match = re.match(r"(.*?):(\d+): ", problem)
    return (match[1], int(match[2])) if match else (problem, 0)


def _items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _shown(value: Any) -> str:
    if isinstance(value, str):
        text = schema.toml_value(value)
        return text if len(text) <= 80 else text[:77] + '…"'
    if isinstance(value, datetime.date | datetime.time):
        return "a date"
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "a list"
    return schema.toml_value(value)


def _read_form(known: Key, value: Any) -> tuple[Any, str]:
    """Checks a string (or each of a list) by its form and makes it canonical: (value, "") or (None, reason)."""
    if not known.form:
        return value, ""
    if isinstance(value, list):
        result = []
        for item in value:
            made, reason = _read_form(known, item)
            if reason:
                return None, reason
            result.append(made)
        return result, ""
    reason = _form_problem(known.form, value)
    if reason:
        return None, reason
    if known.form in ("peer_id", "cluster"):
        return value.lower(), ""
    return value, ""


def _form_problem(form: str, value: str) -> str:
    """What is wrong with the string, "" when nothing."""
    if "\n" in value or "\0" in value:
        return "must be on one line"
    match form:
        case "name":
            wanted = "" if re.fullmatch(r"[A-Za-z0-9_-]{1,64}", value) else "1 to 64 letters, digits, - or _"
        case "peer_id" | "cluster":
            wanted = "" if re.fullmatch(r"[0-9A-Fa-f]{64}", value) else "64 hexadecimal digits"
        case "ipv4":
            wanted = "" if _ipv4(value) else "an IPv4 address"
        case "advertise":
            wanted = "" if value == "auto" or (_ipv4(value) and value != "0.0.0.0") else "auto or an IPv4 address"
        case "prefix":
            wanted = "" if _prefix(value) else "an IPv4 prefix without host bits, such as 198.51.100.0/24"
        case "listen":
            address, _, port = value.rpartition(":")
            fine = _ipv4(address) and re.fullmatch(r"\d{1,5}", port) and 1 <= int(port) <= 65535
            wanted = "" if fine or not value else "ADDRESS:PORT or empty"
        case "socket":
            fits = 0 < len(value.encode()) <= SOCKET_PATH_MAX
            wanted = "" if fits else f"a path of 1 to {SOCKET_PATH_MAX} bytes"
        case _:
            wanted = "" if value else "a path"
    return f"must be {wanted}, not {_shown(value)}" if wanted else ""


def _ipv4(text: str) -> bool:
    try:
        ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return True


def _prefix(text: str) -> bool:
    try:
        ipaddress.IPv4Network(text)
    except ValueError:
        return False
    return True
