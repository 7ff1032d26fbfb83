"""What the laboratory needs from the machine: root, namespaces, nftables, Node and the reference package.

Where something is missing the tests skip and say so. Where the environment says CI=true nothing may be skipped: there
a missing part is a failure.
"""

import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path

from ..node import reference_dir

ROOT = Path(__file__).parents[2]
TOOLS = {
    "ip": "iproute2",
    "nft": "nftables",
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "setpriv": "util-linux",
    "bash": "bash",
}
# Creates what every world is made of, in a namespace that ends with the command.
PROBE = """
set -e
ip link set lo up
ip link add bridge0 type bridge
ip link add veth0 type veth peer name veth1
echo 1 > /proc/sys/net/ipv4/ip_forward
echo 30 > /proc/sys/net/netfilter/nf_conntrack_udp_timeout
nft -f - <<'END'
table ip probe {
  map cone { type inet_service : ipv4_addr; flags dynamic,timeout; timeout 30s; }
  chain post { type nat hook postrouting priority srcnat; oifname "wan" masquerade random; }
}
table bridge probe {
  chain forward { type filter hook forward priority 0; ether type ip numgen random mod 1000 < 1 counter drop; }
}
END
"""


@functools.cache
def missing() -> str | None:
    """Why no world can be built here, or None."""
    if sys.platform != "linux":
        return "network namespaces need Linux"
    if os.geteuid() != 0:
        return "network namespaces and nftables need root"
    absent = sorted({package for tool, package in TOOLS.items() if shutil.which(tool) is None})
    if absent:
        return f"not installed: apt-get install {' '.join(absent)}"
    probe = subprocess.run(["unshare", "--net", "bash", "-c", PROBE], capture_output=True, text=True, check=False)
    if probe.returncode:
        return f"the kernel or its sandbox refuses: {probe.stderr.strip().splitlines()[-1:] or 'no reason given'}"
    return None


@functools.cache
def missing_reference() -> str | None:
    """Why no reference peer can run here, or None. Installs it the first time."""
    try:
        reference_dir()
    except (RuntimeError, OSError) as error:
        return str(error)
    return None
