"""What a kernel touches on either side of `griddepcontrol.wait`, read off its PTX: races can't be seen without a GPU.

Before the wait the grid ahead may still be writing, so a kernel may load weights only and store nothing.
"""

import re
from dataclasses import dataclass, field

_WAIT, _LAUNCH = "griddepcontrol.wait", "griddepcontrol.launch_dependents"
_REGISTER = re.compile(r"%(?!tid|ntid|ctaid|nctaid)\w+")
_ADDRESS = re.compile(r"\[\s*([^\]\s+]+)")
_STORE = re.compile(r"(?<![\w.])(st\.global|st\.async|red\.|atom\.)")


@dataclass
class Dependences:
    waits: int = 0
    launches_first: bool = False
    """Are the dependents launched before the wait, and once?"""
    loaded_before: set[str] = field(default_factory=set)
    """Parameters whose memory is loaded before the wait."""
    loaded_after: set[str] = field(default_factory=set)
    stores_before: int = 0
    prefetches_before: int = 0


def dependences(ptx: str, parameters: list[str]) -> Dependences:
    """`parameters`: the names of the kernel's parameters that are no constants, in order."""
    found = Dependences()
    origins: dict[str, set[str]] = {}  # register -> the pointers it was computed from
    seen_launch = False
    for line in (line.split("//")[0].strip() for line in ptx.splitlines()):
        if _LAUNCH in line:
            found.launches_first = found.waits == 0 and not seen_launch
            seen_launch = True
        elif line.startswith(_WAIT):
            found.waits += 1
        elif parameter := re.match(r"ld\.param\S*\s+(%\w+), \[\w+_param_(\d+)\]", line):
            index = int(parameter[2])  # behind the kernel's own come scratch memories of Triton's
            is_pointer = index < len(parameters) and parameters[index].endswith("_ptr")
            origins[parameter[1]] = {parameters[index]} if is_pointer else set()
        elif "prefetch" in line:
            # No load: it brings things to the L2, which is where all SMs look, and can't leave them stale.
            found.prefetches_before += found.waits == 0
        elif _STORE.search(line):
            found.stores_before += found.waits == 0
        elif "ld.global" in line or "shared.global" in line:
            address = _ADDRESS.findall(line)[-1]
            into = found.loaded_after if found.waits else found.loaded_before
            into |= origins.get(address, {f"unknown: {line}"})
        elif not line.startswith((".", "$", "@")):
            target, *sources = _REGISTER.findall(line) or [""]
            origins[target] = set().union(*(origins.get(source, set()) for source in sources))
    return found
