"""Traffic of the calendar month (UTC), both ways, all identities: kept over restarts, compared with a quota."""

import os
import time

from srpnode import journal
from srpnode.journal import Journal
from srpnode.schema import Limits
from srpnode.state import StateFile

THROTTLED_BYTES_PER_SECOND = 16_384  # of each identity: enough to answer pings, so that peers find another node


class Volume:
    """Bytes of UDP payload. update() is called with the counters of this process, which start at 0."""

    def __init__(self, state_dir: str, tell: Journal, wall_s: float | None = None) -> None:
        self._file = StateFile(os.path.join(state_dir, "volume.json"), "volume", tell)
        self._tell = tell
        self.month = _month(wall_s)
        self.used = 0
        self._seen = 0
        self._warned = False
        self.exceeded = False
        data = self._file.read()
        if data is not None:
            try:
                month, used = str(data["month"]), int(data["used"])
                if used < 0:
                    raise ValueError
            except (KeyError, TypeError, ValueError):
                self._file.put_aside("is corrupt")
            else:
                if month == self.month:
                    self.used = used

    def update(self, total: int, limits: Limits, wall_s: float | None = None) -> bool:
        """Takes note of the bytes so far; True when it changed whether the quota is exceeded."""
        month = _month(wall_s)
        if month != self.month:
            self.month, self.used, self._warned = month, 0, False
        self.used += max(total - self._seen, 0)
        self._seen = total
        quota = limits.volume_bytes_per_month
        percent = 100 * self.used / quota if quota else 0.0
        if not quota or percent < limits.volume_warn_percent:
            self._warned = False
        elif not self._warned:
            self._warned = True
            self._tell.tell(journal.VOLUME, f"{percent:.0f} % of this month's {quota} bytes are used")
        exceeded = percent >= 100
        if exceeded == self.exceeded:
            return False
        self.exceeded = exceeded
        if exceeded:
            self._tell.tell(
                journal.VOLUME,
                f"this month's {quota} bytes are used up; limits.volume_action = {limits.volume_action}",
                level=journal.Level.ERROR,
            )
        return True

    def save(self) -> None:
        """Writes the sum down."""
        self._file.write({"month": self.month, "used": self.used})


def _month(wall_s: float | None) -> str:
    return time.strftime("%Y-%m", time.gmtime(wall_s))
