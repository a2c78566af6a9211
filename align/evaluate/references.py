"""How near responses come to references: BLEU and chrF by sacrebleu, from 0 to 100, and ROUGE-L."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_HAN, _NO_SPACES = (
    re.compile("[\u3400-\u4dbf\u4e00-\u9fff]"),
    re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff]"),
)


def chrf(texts: Sequence[str], references: Sequence[str]) -> Floats:
    """chrF (Popović 2015) of each text against its reference (n,), with sacrebleu's settings: characters to 6, β 2."""
    from sacrebleu.metrics import CHRF

    metric = CHRF()
    pairs = zip(texts, references, strict=True)
    return np.array([metric.sentence_score(text, [reference]).score for text, reference in pairs])


def bleu_counts(texts: Sequence[str], references: Sequence[str]) -> NDArray[np.int64]:
    """What BLEU is made of, summed over texts, (n, 10): length of the text and of its reference in tokens, n-grams that
    occur in both for n = 1 to 4, n-grams of the text.

    Tokens are sacrebleu's: 13a, `zh` where the reference has Chinese characters, and single characters for Thai, Lao,
    Burmese, Khmer and kana.
    """
    from sacrebleu.metrics import BLEU

    metrics: dict[str, Any] = {}
    rows = []
    for text, reference in zip(texts, references, strict=True):
        kind = "char" if _NO_SPACES.search(reference) else "zh" if _HAN.search(reference) else "13a"
        if kind not in metrics:
            metrics[kind] = BLEU(tokenize=kind, effective_order=True)
        found = metrics[kind].sentence_score(text, [reference])
        rows.append([found.sys_len, found.ref_len, *found.counts, *found.totals])
    return np.array(rows, dtype=np.int64).reshape(len(rows), 10)


def bleu(counts: NDArray[np.int64]) -> float:
    """Corpus BLEU (Papineni et al. 2002) of summed counts (10,), by sacrebleu's own formula."""
    from sacrebleu.metrics import BLEU

    length, reference, *both = (int(value) for value in counts)
    return float(BLEU.compute_bleu(both[:4], both[4:], length, reference, smooth_method="exp").score)


def bleu_without_each(counts: NDArray[np.int64]) -> Floats:
    """`bleu` of all rows (n, 10) but the i-th, (n,)."""
    return np.array([bleu(row) for row in counts.sum(axis=0) - counts])
