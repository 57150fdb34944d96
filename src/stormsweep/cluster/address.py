"""Which address of this machine other nodes reach it at."""

from __future__ import annotations

import socket

import psutil

from stormsweep.errors import UserError

LOOPBACK = "127.0.0.1"


def own_address(interface: str | None = None) -> str:
    """Return the IPv4 address that others reach this machine at.

    Parameters
    ----------
    interface : str, optional
        Name of a network, such as ``ib0``; none: the one that the machine's name stands for, or
        the first that is up.

    Raises
    ------
    UserError
        If there is no such network here, or it has no address.
    """
    networks = {
        name: [one.address for one in found if one.family == socket.AF_INET]
        for name, found in psutil.net_if_addrs().items()
    }
    if interface is not None:
        if not networks.get(interface):
            raise UserError(
                f"interface: given {interface!r}; networks with an address here are "
                f"{', '.join(sorted(name for name, found in networks.items() if found))}"
            )
        return networks[interface][0]
    try:
        named = socket.gethostbyname(socket.gethostname())
    except OSError:
        named = LOOPBACK
    if not named.startswith("127."):
        return named
    # Debian gives a machine's own name an address of loopback.
    up = psutil.net_if_stats()
    outside = [
        address
        for name, found in networks.items()
        if name in up and up[name].isup
        for address in found
        if not address.startswith("127.")
    ]
    return outside[0] if outside else LOOPBACK
