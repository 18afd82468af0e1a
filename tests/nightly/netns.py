"""Two network namespaces of this machine, joined by a link that can be cut, slowed down and made to lose packets. Needs
root and iproute2. What the two sides are called and use stays within them."""

from __future__ import annotations

import fcntl
import heapq
import os
import random
import select
import shutil
import struct
import subprocess
import threading
import time
from contextlib import suppress

LINK = "dhplink"  # the interface, on both sides
ADDRESSES = ("10.77.0.1", "10.77.0.2")
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000  # Linux if_tun.h


def why_not() -> str:
    """What keeps this machine from having namespaces; empty where nothing does."""
    if not shutil.which("ip") or not shutil.which("tc"):
        return "needs ip and tc (iproute2)"
    if os.geteuid() != 0:
        return "network namespaces need root"
    name = f"dhp-{os.getpid()}-try"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if made.returncode:
        return f"no network namespaces here: {made.stderr.strip()}"
    linked = subprocess.run(
        ["ip", "-n", name, "link", "add", "try0", "type", "veth", "peer", "name", "try1"],
        capture_output=True,
        text=True,
        check=False,
    )
    subprocess.run(["ip", "netns", "del", name], check=False)
    return f"no veth here: {linked.stderr.strip()}" if linked.returncode else ""


class TwoHosts:
    """The sides are 0 and 1. Joined by a veth pair, or, with `relay`, through it: packets in its own time."""

    def __init__(self, relay: Relay | None = None) -> None:
        self._names = [f"dhp-{os.getpid()}-{side}" for side in (0, 1)]
        self._relay = relay

    def __enter__(self) -> TwoHosts:
        try:
            for name in self._names:
                ip("netns", "add", name)
                ip("-n", name, "link", "set", "lo", "up")
            if self._relay:
                self._relay.join(self._names)
            else:
                ip(
                    "link",
                    "add",
                    LINK,
                    "netns",
                    self._names[0],
                    "type",
                    "veth",
                    "peer",
                    "name",
                    LINK,
                    "netns",
                    self._names[1],
                )
            for side in (0, 1):
                self.ip(side, "addr", "add", f"{ADDRESSES[side]}/24", "dev", LINK)
                self.ip(side, "link", "set", LINK, "up")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._relay:
            self._relay.stop()
        for name in self._names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)

    def netns(self, side: int) -> str:
        return f"/run/netns/{self._names[side]}"

    def ip(self, side: int, *words: str) -> None:
        ip("-n", self._names[side], *words)

    def throttle(self, rate: str, burst: str, latency: str) -> None:
        """Both directions: a token bucket filter."""
        for name in self._names:
            words = ["qdisc", "add", "dev", LINK, "root", "tbf", "rate", rate, "burst", burst, "latency", latency]
            subprocess.run(["tc", "-n", name, *words], check=True)


def ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"ip {' '.join(words)}: {done.stderr.strip()}")


class Relay:
    """Carries packets between two TUN interfaces, each after `delay_s`, but for a share `loss` of them."""

    def __init__(self, delay_s: float = 0.0, loss: float = 0.0) -> None:
        self.delay_s, self.loss = delay_s, loss
        self._files: list[int] = []
        self._thread: threading.Thread | None = None
        self._stopping = False

    def join(self, namespaces: list[str]) -> None:
        for side, namespace in enumerate(namespaces):
            file = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
            self._files.append(file)
            name = f"dhp{os.getpid()}{'ab'[side]}"
            fcntl.ioctl(file, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI))
            ip("link", "set", name, "netns", namespace, "name", LINK)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopping = True
        if self._thread:
            self._thread.join()
        for file in self._files:
            os.close(file)
        self._files.clear()

    def _run(self) -> None:
        chance = random.Random(1)
        under_way: list[tuple[float, int, int, bytes]] = []  # due, number, to whom, packet
        number = 0
        while not self._stopping:
            wait_s = max(0.0, under_way[0][0] - time.monotonic()) if under_way else 0.05
            for file in select.select(self._files, [], [], min(wait_s, 0.05))[0]:
                with suppress(OSError):  # an interface that is down
                    packet = os.read(file, 65536)
                    if chance.random() >= self.loss:
                        number += 1
                        other = self._files[1 - self._files.index(file)]
                        heapq.heappush(under_way, (time.monotonic() + self.delay_s, number, other, packet))
            while under_way and under_way[0][0] <= time.monotonic():
                _, _, other, packet = heapq.heappop(under_way)
                with suppress(OSError):
                    os.write(other, packet)
