"""A stream of bytes as a train of events: what does not fit into one event travels in numbered cars.

What fits goes as it is, without any mark. Else each event begins with a header of 28 bytes: the mark, 8 random bytes
that name the train, the car's number (u32, from 0), and a byte that is 1 in the last car.
"""

from __future__ import annotations

import os
import struct
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterable
from dataclasses import dataclass, field

MARK = b"\x00srp-train/1\x00\x00\x00"
HEADER = struct.Struct(f">{len(MARK)}s8sIB")
CAR_BYTES = 1 << 16
TRAINS_MAX = 64
WAITING_BYTES_MAX = 64_000_000  # of cars that came before their turn


@dataclass(frozen=True)
class Car:
    """A part of a train: its name, its place, whether it is the last, and its load."""

    train: bytes
    number: int
    last: bool
    load: bytes


async def split(pieces: AsyncIterable[bytes], car_bytes: int = CAR_BYTES) -> AsyncGenerator[tuple[bytes, int], None]:
    """The events' payloads, and how many bytes of the stream each holds. One event at least, even for nothing."""
    name = os.urandom(8)
    waiting = bytearray()
    number = 0
    async for piece in pieces:
        waiting += piece
        while len(waiting) > car_bytes:  # more than one car: this one is not the last
            load = bytes(waiting[:car_bytes])
            del waiting[:car_bytes]
            yield HEADER.pack(MARK, name, number, 0) + load, len(load)
            number += 1
    load = bytes(waiting)
    yield (HEADER.pack(MARK, name, number, 1) + load if number else load), len(load)


def read(payload: bytes) -> Car | None:
    """The car that a payload is, None when it is no part of a train."""
    if len(payload) < HEADER.size or not payload.startswith(MARK):
        return None
    _, name, number, last = HEADER.unpack_from(payload)
    return Car(name, number, last == 1, payload[HEADER.size :])


@dataclass
class _Arriving:
    next: int = 0
    cars: dict[int, Car] = field(default_factory=dict)
    size: int = 0


class Yard:
    """Puts the cars of any number of trains in their order. Bounded: the train that came first is given up first."""

    def __init__(self) -> None:
        self._trains: OrderedDict[tuple[bytes, bytes], _Arriving] = OrderedDict()
        self._size = 0
        self.given_up = 0

    def add(self, sender: bytes, car: Car) -> list[Car]:
        """The cars whose turn has come. sender: a train's cars are of one sender."""
        key = (sender, car.train)
        train = self._trains.setdefault(key, _Arriving())
        if car.number >= train.next and car.number not in train.cars:
            train.cars[car.number] = car
            train.size += len(car.load)
            self._size += len(car.load)
        ready: list[Car] = []
        while train.next in train.cars:
            ready.append(train.cars.pop(train.next))
            train.next += 1
            train.size -= len(ready[-1].load)
            self._size -= len(ready[-1].load)
        if ready and ready[-1].last:
            self._forget(key)
        while len(self._trains) > TRAINS_MAX or self._size > WAITING_BYTES_MAX:
            self._forget(next(iter(self._trains)))
            self.given_up += 1
        return ready

    def _forget(self, key: tuple[bytes, bytes]) -> None:
        self._size -= self._trains.pop(key).size
