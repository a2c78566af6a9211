"""What cards can do, from their vendors' datasheets: memory, arithmetic, memory bandwidth, and the link to the next."""

import re
from typing import NamedTuple

from preferences.errors import BadInput


class Card(NamedTuple):
    """A GPU. Rates are the datasheet's for dense matrices, summed in fp32."""

    name: str
    memory: float  # GB (10^9 bytes); the driver shows a little more
    tflops: float  # 10^12 operations a second, in bf16; in fp16 where it has none
    bandwidth: float  # GB/s, of its memory
    link: float  # GB/s between two of them, both directions together: NVLink, else PCIe
    source: str
    bf16: bool = True


_DATA_CENTER = "https://www.nvidia.com/en-us/data-center/"
_ADA = "https://images.nvidia.com/aem-dam/Solutions/geforce/ada/nvidia-ada-gpu-architecture.pdf"
_AMPERE = "https://www.nvidia.com/content/PDF/nvidia-ampere-ga-102-gpu-architecture-whitepaper-v2.1.pdf"
_BLACKWELL = "https://images.nvidia.com/aem-dam/Solutions/geforce/blackwell/nvidia-rtx-blackwell-gpu-architecture.pdf"

CARDS = (
    Card("B200", 180, 2250, 7700, 1800, _DATA_CENTER + "hgx/"),
    Card("H200", 141, 989, 4800, 900, _DATA_CENTER + "h200/"),
    Card("H100 80GB", 80, 989, 3350, 900, _DATA_CENTER + "h100/"),
    Card("H100 PCIe", 80, 756, 2000, 128, _DATA_CENTER + "h100/"),
    Card("A100 80GB", 80, 312, 2039, 600, _DATA_CENTER + "a100/"),
    Card("A100 40GB", 40, 312, 1555, 600, _DATA_CENTER + "a100/"),
    Card("L40S", 48, 362, 864, 64, _DATA_CENTER + "l40s/"),
    Card("L4", 24, 121, 300, 64, _DATA_CENTER + "l4/"),
    Card("A40", 48, 149.7, 696, 64, _DATA_CENTER + "a40/"),
    Card("A10", 24, 125, 600, 64, _DATA_CENTER + "products/a10-gpu/"),
    Card("T4", 16, 65, 320, 32, _DATA_CENTER + "tesla-t4/", bf16=False),
    Card("RTX 5090", 32, 209.5, 1792, 128, _BLACKWELL),
    Card("RTX 4090", 24, 165.2, 1008, 64, _ADA),
    Card("RTX 3090", 24, 71, 936, 64, _AMPERE),
)


def find_card(name: str) -> Card:
    """The card of a name as people write it: `a100-80gb`, `NVIDIA L4`. Raises BadInput for an unknown or open one."""
    words = _words(name)
    exact = [card for card in CARDS if _words(card.name) == words]
    found = exact or [card for card in CARDS if words and words <= _words(card.name)]
    if len(found) != 1:
        names = ", ".join(card.name for card in found or CARDS)
        wrong = "may be any of" if found else "is not in the table, which has"
        raise BadInput(f"--gpu {name}: {wrong} {names}; name one, or give its memory by --gpu-memory GB")
    return found[0]


def card_of_driver(name: str) -> Card | None:
    """The card that the driver calls so, as in `NVIDIA A100-SXM4-80GB`; None for one that is not in the table."""
    words = _words(name)
    found = [card for card in CARDS if _words(card.name) <= words]
    return max(found, key=lambda card: len(_words(card.name)), default=None)


def _words(name: str) -> frozenset[str]:
    """The words of a name, without case, maker and series."""
    words = re.findall(r"\d+ ?gb|rtx|[a-z]*\d+[a-z]*|[a-z]+", name.lower())
    return frozenset(word.replace(" ", "") for word in words) - {"nvidia", "geforce", "tesla"}
