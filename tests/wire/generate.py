# ruff: noqa: SIM905 - long lists read better as text
"""A seeded generator of datagrams for comparing decoders: mutations that know the frame and the JSON inside it."""

import random
from collections.abc import Iterator

from tests.wire.vectors import MAXIMA, datagram, frame, load

SCHEMAS = {
    1: "requesterPeerId cacheSummaryHash probeExternalPort reflectionId pingId natType uptime cacheSize isConnection"
    " isReflection isProbe isDebug timestamp",
    2: "requesterPeerId responderPeerId cacheSummaryHash port address uptime cacheSize natType isReflection"
    " isConnection reflectionId pingId isDebug isProbe rejected",
    3: "requesterPeerId responderPeerId isRendezvous natType address port timestamp",
    4: "rendezvousAddress rendezvousPort rendezvousType rendezvousPeerId rendezvousDeadline rendezvousRequesterPeerId"
    " requesterPeerId natType address key port isConnection",
    8: "packetId",
}
KEYS = sorted({key for schema in SCHEMAS.values() for key in schema.split()})
ODD_KEYS = ["", "__proto__", "constructor", "toString", "Port", "ports", "por", "extra", "natTypf", "isProbf", "\u00e9"]
NUMBERS = (
    "0 -0 1 -1 5 7 13 15 21 23 29 31 32 63 255 1024 65535 65536 65537 2147483647 2147483648 4294967295 4294967296"
    " 4294967301 9007199254740991 9007199254740992 9007199254740993 1700000000000 12345678901234567890"
    " 18446744073709551615 18446744073709551616 123456789012345678901234567890 1e2 1E+2 8e1 80e-1 8.0 0.5"
    " 4.99999999999999 4.9999999999999999 31.5 -27 -27.9 65535.0 65535.5 1e308 1e309 -1e309 1e-400"
    " 0.1e1 5.0e0 1e4 1e5 0e0 0.0 -0.0e-9"
).split()
ADDRESSES = (
    "127.0.0.1 203.0.113.9 255.255.255.255 0.0.0.0 256.1.1.1 1.2.3 1.2.3.4.5 01.2.3.4 ::1 localhost 1.2.3.4\u0130"
).split()
BAD_WORDS = (
    "nul tru True NaN Infinity -Infinity undefined 01 1. .5 +1 - 0x1 1e [1,] {1:2} ' '' \\ // {} [] [{} {]"
).split()


class Generator:
    """Datagrams without end, the same ones for the same seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.vectors = [datagram(vector) for name in ("packets", "verdicts") for vector in load(name)]

    def __iter__(self) -> Iterator[bytes]:
        while True:
            kind = self.random.random()
            if kind < 0.45:
                yield self.message_datagram()
            elif kind < 0.6:
                yield self.framed(self.spoil_text(self.json_text(self.random.choice([1, 2, 3, 4, 8]))))
            elif kind < 0.75:
                yield self.reframed()
            elif kind < 0.95:
                yield self.spoil(self.random.choice(self.vectors))
            else:
                yield self.random.randbytes(self.random.choice([0, 1, 4, 23, 87, 400, 1421, 3000]))

    def hexes(self, digits: int) -> str:
        alphabet = self.random.choice(["0123456789abcdef", "0123456789ABCDEF", "0123456789abcdefABCDEF"])
        return "".join(self.random.choices(alphabet, k=digits))

    def blank(self) -> str:
        return self.random.choice([" ", "\n", "\t\r", "  "]) if self.random.random() < 0.06 else ""

    def escape(self, text: str, chance: float) -> str:
        """The same string for JSON, some characters written as escapes."""
        out = ""
        for char in text:
            if char in '"\\' or ord(char) < 0x20 or self.random.random() < chance:
                units = char.encode("utf-16-be", "surrogatepass")
                out += "".join(f"\\u{units[i] << 8 | units[i + 1]:04x}" for i in range(0, len(units), 2))
            else:
                out += char
        return out

    def string(self, text: str) -> str:
        chance = 0.2 if self.random.random() < 0.05 else 0
        return f'"{self.escape(text, chance)}"'

    def good_value(self, key: str) -> str:
        """A value that suits the key, for the reference at least."""
        if key.endswith("PeerId") or key == "packetId":
            return self.string(self.hexes(64))
        if key == "cacheSummaryHash":
            return self.string(self.hexes(40))
        if key in ("reflectionId", "pingId"):
            return self.string(self.hexes(13 if key == "pingId" and self.random.random() < 0.5 else 12))
        if key in ("natType", "rendezvousType"):
            return self.random.choice(["31", "15", "7", "5", "13", "29", "31.0", "3.1e1", "63"])
        if key.lower().endswith("port"):
            return self.random.choice(["1", "80", "65535", str(self.random.randrange(1, 65536)), "8e1", "80.0"])
        if key in ("uptime", "cacheSize", "timestamp", "rendezvousDeadline"):
            return self.random.choice(["0", "30000", "1700000000000", "-1", "1.5", self.random.choice(NUMBERS)])
        if key.startswith("is") or key == "rejected":
            return self.random.choice(["true", "false"])
        if key == "key":
            return self.string(self.hexes(self.random.randrange(140)))
        return self.string(self.random.choice(ADDRESSES))

    def any_value(self, depth: int = 0) -> str:
        """A value of any sort."""
        kind = self.random.randrange(9 if depth < 4 else 6)
        if kind == 0:
            return self.random.choice(NUMBERS)
        if kind == 1:
            digits = "".join(self.random.choices("0123456789", k=self.random.randrange(1, 40))).lstrip("0") or "0"
            fraction = "." + "".join(self.random.choices("0123456789", k=self.random.randrange(1, 30)))
            exponent = self.random.choice("eE") + self.random.choice(["", "+", "-"]) + str(self.random.randrange(40))
            return digits + self.random.choice(["", fraction]) + self.random.choice(["", exponent])
        if kind == 2:
            return self.random.choice(["null", "true", "false"])
        if kind == 3:
            length = self.random.choice([0, 11, 12, 13, 14, 39, 40, 41, 63, 64, 65, 66])
            return self.string(self.hexes(length))
        if kind == 4:
            length = self.random.choice([12, 13, 40, 64])
            text = list(self.hexes(length))
            text[self.random.randrange(length)] = self.random.choice("gG/:@`\u00e9\u0000 \n\U0001f600")
            return self.string("".join(text))
        if kind == 5:
            return self.string(self.random.choice([*ADDRESSES, "", "x" * 80, "\u00e9", "\ud800"]))
        if kind == 6:
            return "[" + ",".join(self.any_value(depth + 1) for _ in range(self.random.randrange(3))) + "]"
        if kind == 7:
            members = [
                f'"{self.random.choice(KEYS)}":{self.any_value(depth + 1)}' for _ in range(self.random.randrange(3))
            ]
            return "{" + ",".join(members) + "}"
        return self.good_value(self.random.choice(KEYS))

    def json_text(self, type_: int) -> str:
        """A JSON message for a type: mostly its keys, mostly with values that suit them."""
        schema = SCHEMAS[type_].split()
        if self.random.random() < 0.5:
            keys = schema[: self.random.randrange(len(schema) + 1)]  # a prefix: the part that the reference checks
        else:
            keys = [key for key in schema if self.random.random() < 0.85]
        wrong = self.random.choice([0, 0, 0.05, 0.15])
        if self.random.random() < 0.5:
            self.random.shuffle(keys)
        if keys and self.random.random() < 0.1:
            keys.append(self.random.choice(keys))
        if self.random.random() < 0.08:
            keys.append(self.random.choice(KEYS + ODD_KEYS))
        members = []
        for key in keys:
            value = self.any_value() if self.random.random() < wrong else self.good_value(key)
            members.append(f"{self.blank()}{self.string(key)}{self.blank()}:{self.blank()}{value}{self.blank()}")
        return f"{self.blank()}{{{','.join(members)}}}{self.blank()}"

    def encoded(self, text: str) -> bytes:
        return text.encode("utf-8", "surrogatepass")

    def framed(self, message: bytes, type_: int | None = None) -> bytes:
        if type_ is None:
            type_ = self.random.choice([1, 2, 3, 4, 8, 5])
        index = self.random.choice([-1, -1, 0, 1])
        return frame(type_, message, index=index)

    def message_datagram(self) -> bytes:
        type_ = self.random.choice([1, 2, 3, 4, 1, 2, 3, 4, 8])
        return self.framed(self.encoded(self.json_text(type_)), type_)

    def spoil_text(self, text: str) -> bytes:
        """JSON with a few of its characters changed."""
        data = bytearray(self.encoded(text))
        for _ in range(self.random.randrange(1, 4)):
            at = self.random.randrange(len(data) + 1)
            kind = self.random.randrange(5)
            if kind == 0 and at < len(data):
                del data[at]
            elif kind == 1:
                data[at:at] = self.random.choice(BAD_WORDS).encode()
            elif kind == 2 and at < len(data):
                data[at] = self.random.choice(b'"\\{}[]:,0123456789eE+-. \t\x00\x1f\x7f\x80\xc2\xff')
            elif kind == 3:
                del data[at:]
            else:
                data[at:at] = data[self.random.randrange(len(data) + 1) :][: self.random.randrange(20)]
        return bytes(data)

    def reframed(self) -> bytes:
        """A well-formed frame with fields of any length, lies about a length now and then."""
        fields = {}
        for name, most in MAXIMA.items():
            length = self.random.choice([0, 1, 1, 1, most, most, self.random.randrange(most + 2)])
            fields[name] = self.random.randbytes(length)
        type_ = self.random.choice([1, 2, 3, 4, 5, 5, 6, 6, 7, 7, 8, 8, 0, 9])
        message = fields.pop("message")
        if type_ in SCHEMAS:
            message = self.encoded(self.json_text(type_))
        index = self.random.choice([-1, 0, 1, -1, 0, 1, self.random.randrange(-(2**31), 2**31)])
        data = frame(
            type_,
            message,
            fields,
            clock=self.random.getrandbits(32),
            hops=self.random.getrandbits(32),
            index=index,
            ttl=self.random.getrandbits(32),
            version=self.random.choice([6] * 9 + [7]),
        )
        return data if self.random.random() < 0.7 else self.spoil(data)

    def spoil(self, data: bytes) -> bytes:
        """A datagram cut, extended, or with a few bytes changed."""
        out = bytearray(data)
        for _ in range(self.random.randrange(1, 3)):
            kind = self.random.randrange(6)
            at = self.random.randrange(len(out) + 1)
            if kind == 0:
                del out[at:]
            elif kind == 1:
                out += self.random.randbytes(self.random.randrange(40))
            elif kind == 2 and at < len(out):
                out[at] = self.random.randrange(256)
            elif kind == 3 and at < len(out):
                out[at] ^= 1 << self.random.randrange(8)
            elif kind == 4:
                del out[at : at + self.random.randrange(4)]
            else:
                out[at:at] = self.random.randbytes(self.random.randrange(4))
        return bytes(out)
