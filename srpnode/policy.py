"""What the cores are told to allow at this moment: the configuration, narrowed by blocks and by the month's volume."""

import copy

from srpnode.blocks import Blocks
from srpnode.journal import Journal
from srpnode.schema import Access, Config, Limits
from srpnode.volume import THROTTLED_BYTES_PER_SECOND, Volume

EVERYBODY = "0.0.0.0/0"


class Policy:
    """Blocks and volume of one process."""

    def __init__(self, state_dir: str, tell: Journal) -> None:
        self.blocks = Blocks(state_dir, tell)
        self.volume = Volume(state_dir, tell)

    def effective(self, config: Config) -> tuple[Limits, Access]:
        """Limits and rules for every core. Raises BlockError when configuration and blocks together do not fit."""
        limits, access = copy.copy(config.limits), self.blocks.merged(config.access)
        if self.volume.exceeded and config.limits.volume_action == "throttle":
            wanted = config.limits.bandwidth_out_bytes_per_second or THROTTLED_BYTES_PER_SECOND
            limits.bandwidth_out_bytes_per_second = min(wanted, THROTTLED_BYTES_PER_SECOND)
        if self.volume.exceeded and config.limits.volume_action == "refuse":
            access.deny_prefixes = [EVERYBODY]
            access.allow_prefixes = []
        return limits, access

    def changed(self, config: Config, total_bytes: int) -> bool:
        """Looks at the clock and the traffic; True when effective() has changed."""
        expired = self.blocks.expire()
        return self.volume.update(total_bytes, config.limits) or expired
