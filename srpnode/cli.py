"""The command line: srpnode COMMAND. Exit status 0 fine, 1 the thing asked for failed, 2 usage."""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from srpnode import __version__
from srpnode.schema import DEFAULT_FILE

Handler = Callable[[argparse.Namespace], int]


class FailureError(Exception):
    """The thing asked for failed; the text is for the operator."""


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; returns the exit status."""
    words = sys.argv[1:] if arguments is None else arguments
    try:
        if words[:1] == ["sim"]:
            return sim(words[1:])
        if words[:1] == ["bench"]:
            return bench(words[1:])
        options = parser().parse_args(words)
        handler: Handler = options.handler
        status = handler(options)
        sys.stdout.flush()
        return status
    except FailureError as failure:
        print(failure, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output went away: `srpnode peers | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def parser() -> argparse.ArgumentParser:
    """The grammar of the command line; the man page and the shell completion are checked against it."""
    whole = argparse.ArgumentParser(
        prog="srpnode", description="Node of the Stream Relay Protocol: introduces peers, stores, forwards and relays."
    )
    whole.add_argument("--version", action="version", version=f"srpnode {__version__}")
    commands = whole.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def command(name: str, handler: Handler, text: str, *, as_json: bool = True) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=text)
        made.set_defaults(handler=handler)
        made.add_argument(
            "-c",
            "--config",
            metavar="FILE",
            help=f"configuration; {DEFAULT_FILE} by default, embedded defaults when that does not exist",
        )
        if as_json:
            made.add_argument("--json", action="store_true", help="print JSON")
        return made

    command("run", run, "run the node in the foreground", as_json=False)
    command("check", check, "validate the configuration")
    command("info", info, "print the node's identities, as an application lists them")
    command("status", status, "show what the running node does")
    command("peers", peers, "list the peers that the running node knows")
    made = command("top", top, "watch the running node; q ends it")
    made.add_argument("-n", "--frames", type=count, default=0, metavar="N", help="end after N frames")
    made = command("doctor", doctor, "find out what is wrong, and what to do about it")
    made.add_argument(
        "--via", metavar="HOST:PORT", type=endpoint, action="append", default=[], help="a peer that looks from outside"
    )
    command("reload", reload, "have the running node read its configuration again")
    made = command("block", block, "have the running node refuse a prefix or a cluster for a while")
    made.add_argument("what", metavar="WHAT", help="an IPv4 address, a prefix or a cluster (64 hexadecimal digits)")
    made.add_argument("--for", dest="seconds", type=count, default=3600, metavar="SECONDS", help="how long (3600)")
    made = command("unblock", unblock, "end a block before its time")
    made.add_argument("what", metavar="WHAT", help="as it was blocked")
    command("blocks", blocks, "list what is blocked, and for how long")
    made = command("ping", ping, "measure round trips to a peer, and show where it sees us")
    made.add_argument("peer", metavar="HOST:PORT", type=endpoint, help="any peer")
    made.add_argument("-n", "--count", type=count, default=3, metavar="N", help="how many pings (3)")
    made.add_argument("--timeout", type=seconds, default=2.0, metavar="SECONDS", help="for each answer (2)")
    client_commands(commands)
    # These have a grammar of their own for all words behind them: main() hands these on.
    commands.add_parser("sim", help="simulate networks on the node's own core", add_help=False)
    commands.add_parser("bench", help="measure the node of a source tree, as `make bench` does", add_help=False)
    return whole


def client_commands(commands: Any) -> None:
    """The commands that are ordinary peers; they need no configuration."""

    def command(name: str, text: str, *, via: bool = True, cluster: bool = True) -> argparse.ArgumentParser:
        made: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
        made.set_defaults(handler=client, work=name)
        made.add_argument("--json", action="store_true", help="print JSON")
        made.add_argument(
            "--via",
            metavar="HOST:PORT",
            type=endpoint,
            action="append",
            default=[],
            required=via,
            help="a peer to start from; at least two, so give it twice",
        )
        if cluster:
            made.add_argument("--cluster", required=True, metavar="NAME", help="the application")
            made.add_argument(
                "--subcluster", required=True, metavar="NAME", help="the part of it; whoever knows it reads"
            )
        return made

    made = command("publish", "publish an event, as any application would")
    made.add_argument("event", metavar="EVENT", help="its name")
    made.add_argument("data", metavar="DATA", nargs="?", help="a text; - or nothing: standard input, in parts if large")
    made.add_argument("--ttl", type=seconds, metavar="SECONDS", help="how long peers keep it (21600)")
    made.add_argument("--per-minute", type=pace, metavar="N", help="packets; 0: as fast as can be (what nodes take)")
    made.add_argument("--timeout", type=seconds, default=30.0, metavar="SECONDS", help="without any progress (30)")
    made = command("listen", "print a JSON line for each event")
    made.add_argument("event", metavar="EVENT", nargs="?", help="only those of this name")
    made.add_argument("--raw", action="store_true", help="write the bytes, as publish read them")
    made.add_argument("-n", "--count", type=count, metavar="N", help="end after N events")
    made.add_argument("--timeout", type=seconds, metavar="SECONDS", help="end when nothing comes for so long")
    made = command("nat", "find out our NAT type, and who says so", via=False, cluster=False)
    made.add_argument("--timeout", type=seconds, default=15.0, metavar="SECONDS", help="in all (15)")
    made = command("trace", "show how a packet flows: hops, peers, times")
    made.add_argument("--timeout", type=seconds, default=15.0, metavar="SECONDS", help="for each step (15)")


def seconds(text: str) -> float:
    """A positive time, for argparse."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 86_400:
        raise argparse.ArgumentTypeError(f"must be more than 0, at most 86400 seconds, not {text!r}")
    return value


def endpoint(text: str) -> tuple[str, int]:
    """(host, port) of HOST:PORT, for argparse."""
    host, _, port = text.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or not 1 <= int(port) <= 65535:
        raise argparse.ArgumentTypeError(f"must be HOST:PORT, not {text!r}")
    return host, int(port)


def count(text: str) -> int:
    """A positive number up to a million, for argparse."""
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 1_000_000:
        raise argparse.ArgumentTypeError(f"must be 1 to 1000000, not {text!r}")
    return int(text)


def pace(text: str) -> int:
    """A number up to a million, or 0 for none, for argparse."""
    return 0 if text == "0" else count(text)


def show_json(value: Any) -> None:
    """Prints one JSON document."""
    print(json.dumps(value, indent=2))


def _loaded(options: argparse.Namespace) -> Any:
    from srpnode import config

    try:
        return config.load(options.config)
    except config.ConfigError as error:
        raise FailureError(str(error)) from None


def run(options: argparse.Namespace) -> int:
    """srpnode run"""
    loaded = _loaded(options)
    from srpnode import daemon

    return daemon.run(loaded, options.config)


def check(options: argparse.Namespace) -> int:
    """srpnode check"""
    from srpnode import config

    problems: list[str] = []
    files: tuple[str, ...] = ()
    try:
        files = config.load(options.config).files
    except config.ConfigError as error:
        problems = error.problems
    if options.json:
        show_json({"ok": not problems, "files": list(files), "problems": problems})
    elif not problems:
        print(f"fine: {', '.join(files)}" if files else f"fine: no {DEFAULT_FILE}, the embedded defaults apply")
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


def info(options: argparse.Namespace) -> int:
    """srpnode info"""
    from srpnode import info as module

    config = _loaded(options).config
    try:
        entries, remarks = module.collect(config)
    except module.InfoError as error:
        raise FailureError(str(error)) from None
    if options.json:
        show_json(entries)
    else:
        print(module.text(entries))
        for remark in remarks:
            print(remark, file=sys.stderr)
    return 0


def ask(options: argparse.Namespace, command: str, timeout_s: float = 10.0, **arguments: Any) -> Any:
    """The running node's answer to one command."""
    from srpnode import control

    config = _loaded(options).config
    try:
        client = control.connect(config, timeout_s)
        try:
            return client.ask(command, **arguments)
        finally:
            client.close()
    except control.ControlError as error:
        raise FailureError(str(error)) from None


def status(options: argparse.Namespace) -> int:
    """srpnode status"""
    from srpnode import show

    figures = ask(options, "status")
    if options.json:
        show_json(figures)
    else:
        print(show.status(figures))
    return 0


def peers(options: argparse.Namespace) -> int:
    """srpnode peers"""
    from srpnode import show

    rows = ask(options, "peers", 60.0)
    if options.json:
        show_json(rows)
    else:
        print(show.peers(rows))
    return 0


def top(options: argparse.Namespace) -> int:
    """srpnode top"""
    from srpnode import control
    from srpnode import top as module

    config = _loaded(options).config
    try:
        client = control.connect(config)
        try:
            if options.json:
                for number in range(options.frames or 1):
                    if number:
                        time.sleep(module.INTERVAL_S)
                    print(json.dumps({**client.ask("status"), **client.ask("overview")}), flush=True)
            else:
                module.run(client.ask, options.frames)
        finally:
            client.close()
    except control.ControlError as error:
        raise FailureError(str(error)) from None
    return 0


def doctor(options: argparse.Namespace) -> int:
    """srpnode doctor"""
    from srpnode import doctor as module

    findings = module.examine(options.config, options.via)
    if options.json:
        show_json(findings)
    else:
        print(module.text(findings, module.use_colour()))
    return 1 if any(finding["state"] == module.BAD for finding in findings) else 0


def reload(options: argparse.Namespace) -> int:
    """srpnode reload"""
    answer = ask(options, "reload", 30.0)
    if options.json:
        show_json(answer)
        return 0
    print(f"applied: {', '.join(answer['applied']) or 'nothing changed'}")
    if answer["restart"]:
        print(f"needs a restart: {', '.join(answer['restart'])}")
    return 0


def block(options: argparse.Namespace) -> int:
    """srpnode block"""
    answer = ask(options, "block", what=options.what, seconds=options.seconds)
    if options.json:
        show_json(answer)
    else:
        print(f"{answer['what']} is blocked for {options.seconds} s")
    return 0


def unblock(options: argparse.Namespace) -> int:
    """srpnode unblock"""
    answer = ask(options, "unblock", what=options.what)
    if options.json:
        show_json(answer)
    else:
        print(f"{answer['what']} is not blocked any more")
    return 0


def blocks(options: argparse.Namespace) -> int:
    """srpnode blocks"""
    rows = ask(options, "blocks")
    if options.json:
        show_json(rows)
        return 0
    for row in rows:
        print(f"{row['what']}  {row['seconds']:.0f} s")
    if not rows:
        print("nothing is blocked")
    return 0


def ping(options: argparse.Namespace) -> int:
    """srpnode ping"""
    from srpnode import ping as module

    try:
        result = module.ping(options.peer, options.count, None if options.json else print, options.timeout)
    except module.PingError as error:
        raise FailureError(str(error)) from None
    if options.json:
        show_json(result)
    return 0 if result["received"] else 1


def client(options: argparse.Namespace) -> int:
    """srpnode publish, listen, nat, trace"""
    from importlib import import_module

    from srpnode import client as module

    work = getattr(import_module(f"srpnode.client_{options.work}"), options.work)
    try:
        return module.run(lambda: work(options))
    except module.ClientError as error:
        raise FailureError(str(error)) from None


def sim(words: list[str]) -> int:
    """srpnode sim"""
    from srpnode.sim import command

    return command.main(words)


def bench(words: list[str]) -> int:
    """srpnode bench"""
    program = Path(__file__).resolve().parents[1] / "bench" / "run.py"
    if not program.exists():
        raise FailureError("the bench is part of the source tree: make bench in a clone")
    os.execv(sys.executable, [sys.executable, str(program), *words])
