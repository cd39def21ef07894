"""Which Host headers are accepted by a server that needs no key because only this machine reaches it.

A web page can point its own name at 127.0.0.1 (DNS rebinding). The browser then takes this server for the page's own
site, and CORS allows everything. What still gives the page away is the Host header, which has the page's name in it.
"""

import re
from ipaddress import ip_address

from starlette.types import Scope

from zeroshot.api.access.keys import ApiKeys
from zeroshot.errors import HostNotAllowed
from zeroshot.settings import Settings

_HOST = re.compile(r"(?:\[(?P<ipv6>[^\]]*)\]|(?P<name>[^:]*))(?::\d*)?")


class HostCheck:
    """`require` accepts requests that are addressed to this machine, or to one of `names`."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = frozenset(name.lower() for name in names)

    @classmethod
    def wanted_by(cls, settings: Settings, keys: ApiKeys) -> "HostCheck | None":
        """None where there are keys, which a page doesn't have, or where other machines may call by any name."""
        return None if len(keys) or not _is_this_machine(settings.host) else cls(settings.allowed_hosts)

    def require(self, scope: Scope) -> None:
        """Raises HostNotAllowed. A request without the header passes: no browser sends one."""
        for header, value in scope["headers"]:
            if header == b"host" and value and not self._allows(value.decode("latin-1").lower()):
                raise HostNotAllowed(
                    "This server has no keys, so it answers only to localhost and 127.0.0.1 in the Host header. "
                    "ZEROSHOT_ALLOWED_HOSTS adds names."
                )

    def _allows(self, host: str) -> bool:
        match = _HOST.fullmatch(host)
        name = (match["ipv6"] or match["name"] or "") if match else ""
        return name in self._names or _is_this_machine(name)


def _is_this_machine(name: str) -> bool:
    try:
        return name == "localhost" or ip_address(name).is_loopback
    except ValueError:
        return False
