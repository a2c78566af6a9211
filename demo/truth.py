"""What the demo's simulated raters like, known exactly: one short, direct sentence that ends by itself.

Real raters have no such function. Here it lets the report say how much of the truth was recovered.
"""

import re
from typing import Any

IDEAL_WORDS = 12

_PREAMBLE = re.compile(
    r"(sure|certainly|of course|absolutely|great question|that's a (great|good)|what a|as an ai"
    r"|i'm (happy|sorry|an ai))",
    re.IGNORECASE,
)


def utility(prompt: Any, response: str) -> float:
    """0 is perfect, less is worse: an eighth off for each word from twelve, 2 when cut off, 1 for a preamble."""
    text = response.strip()
    cut_off = not text.endswith((".", "!", "?"))
    preamble = _PREAMBLE.match(text) is not None
    return -abs(len(text.split()) - IDEAL_WORDS) / 8 - 2.0 * cut_off - 1.0 * preamble
