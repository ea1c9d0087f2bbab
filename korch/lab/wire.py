"""A slow cable: passes Ethernet frames between a node's link and the bridge, each a little later. Run as a script.

Words: LINK TAP BRIDGE DELAY_MS JITTER_MS. The kernel's own netem is missing on many small machines; TUN and packet
sockets are everywhere. The node itself is not touched: only the host's end of its cable is taken out of the bridge.
Frames carry their virtio header both ways, so that the kernel's segmentation and checksum offload goes on working.
Stdlib only.
"""

import errno
import fcntl
import heapq
import os
import random
import select
import socket
import struct
import subprocess
import sys
import time

# linux/if_tun.h, linux/if_packet.h, linux/if_ether.h
_TUNSETIFF = 0x400454CA
_IFF_TAP, _IFF_NO_PI, _IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
_SOL_PACKET, _PACKET_VNET_HDR, _PACKET_IGNORE_OUTGOING = 263, 15, 23
_ETH_P_ALL = 0x0003
_LONGEST = 65536 + 64
_MOST_WAITING = 20_000  # frames; more are dropped, as by any full queue
# A link that was cut or is not up yet, or a frame that the kernel will not take: the frame is lost, the cable stays.
_LOSSES = {errno.ENETDOWN, errno.EIO, errno.ENOBUFS, errno.EINVAL, errno.EMSGSIZE, errno.EAGAIN, errno.ENXIO}


def open_tap(name: str) -> int:
    """A non-blocking descriptor of a new TAP link, which lives as long as this process."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    request = struct.pack("16sH14x", name.encode(), _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR)
    fcntl.ioctl(descriptor, _TUNSETIFF, request)
    return descriptor


def open_link(name: str) -> socket.socket:
    """A non-blocking packet socket that hears what the link receives, and not what it sends."""
    link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    link.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
    link.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
    link.bind((name, _ETH_P_ALL))
    link.setblocking(False)
    return link


def rewire(link: str, tap: str, bridge: str) -> None:
    """Take the link out of the bridge and put the TAP in. NOARP: this machine must not answer in the node's place."""
    commands = f"link set {tap} addrgenmode none\nlink set {tap} master {bridge} up\nlink set {link} nomaster arp off\n"
    subprocess.run(("ip", "-batch", "-"), input=commands.encode(), check=True)


def carry(ends: tuple[int, int], delay_s: float, jitter_s: float) -> None:
    """Pass frames for ever."""
    other = {ends[0]: ends[1], ends[1]: ends[0]}
    waiting: list[tuple[float, int, int, bytes]] = []
    count = 0
    poll = select.poll()
    for end in ends:
        poll.register(end, select.POLLIN)
    while True:
        timeout_ms = max(0.0, (waiting[0][0] - time.monotonic()) * 1000) if waiting else None
        for end, _ in poll.poll(timeout_ms):
            for frame in _frames(end):
                count += 1
                if len(waiting) < _MOST_WAITING:
                    due = time.monotonic() + max(0.0, delay_s + random.uniform(-jitter_s, jitter_s))  # noqa: S311
                    heapq.heappush(waiting, (due, count, other[end], frame))
        now = time.monotonic()
        while waiting and waiting[0][0] <= now:
            _, _, end, frame = heapq.heappop(waiting)
            _send(end, frame)


def _frames(end: int) -> list[bytes]:
    """What has arrived at this end, some frames at most, so that the other end gets its turn."""
    frames: list[bytes] = []
    try:
        while len(frames) < 64:
            frames.append(os.read(end, _LONGEST))
    except OSError as error:
        if error.errno not in _LOSSES:
            raise
    return frames


def _send(end: int, frame: bytes) -> None:
    try:
        os.write(end, frame)
    except OSError as error:
        if error.errno not in _LOSSES:
            raise


def main(words: list[str]) -> None:
    """Carry frames until killed."""
    link_name, tap_name, bridge, delay_ms, jitter_ms = words
    tap, link = open_tap(tap_name), open_link(link_name)
    rewire(link_name, tap_name, bridge)
    carry((tap, link.fileno()), float(delay_ms) / 1000, float(jitter_ms) / 1000)


if __name__ == "__main__":
    main(sys.argv[1:])
