"""PPO's formulas against numbers that the papers' own code, and what people use today, gave for the same input.

Each reference ran once, in float64 on a CPU, on the input below; here are its outputs to ten digits, nothing of its
code. Functions were called as they are; loops inside a trainer were cut out by line number and executed with the
input in place of a model's outputs. No line of a reference was changed (for OPENAI's, `collections.Mapping`, which
Python has dropped, was put back).

OPENAI   openai/lm-human-preferences at cbfd210bb8b08f6bc5c26878c10984b90f516c66: the code of "Fine-Tuning Language
         Models from Human Preferences" (arXiv 1909.08593). TensorFlow 1 code, run in TensorFlow 2.21.0's `compat.v1`:
         train_policy.py `compute_rewards`, `PPOTrainer.loss`, `AdaptiveKLController`; utils/core.py `whiten`,
         `entropy_from_logits`, `logprobs_from_logits`. It has no masks: all responses have the same length.
DETAILS  vwxyzjn/lm-human-preference-details at ccc19538e817e98a60d3253242ac15e2a562cb49, its reproduction in PyTorch:
         train_policy_accelerate.py `whiten`, `AdaptiveKLController`, lines 630-637, 675-685, 714-728 and 735.
SUMMARY  vwxyzjn/summarize_from_feedback_details at ee77a9abc31f5338365ee087945c5bcafac7f1ca ("The N+ Implementation
         Details of RLHF with PPO", arXiv 2403.17031): ppo.py `masked_whiten`, lines 671-704, 733-735, 739-755, 762-764.
CLEANRL  vwxyzjn/cleanrl at fe8d8a03c41a7ef5b523e2e354bd01c363e786bb: ppo.py lines 220-231 (GAE), 251-282 (losses) and
         295-297 (explained variance), and `torch.distributions.Categorical` as its agent uses it.
TRL      huggingface/trl 1.12.0 from PyPI: trl/experimental/ppo/ppo_trainer.py `masked_whiten`, lines 763-798, 829-846,
         851-854 and 857; trl/experimental/utils.py `get_reward`.

The PyTorch code ran under torch 2.13.0.
"""

import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, Literal

import pytest
import torch

from align.models import scores as scoring
from align.models.logprobs import response_logprobs, to_rows
from align.ppo.advantages import adapt_kl_coef, explained_variance, gae, kl_estimate, token_rewards, whiten
from align.ppo.losses import policy_loss, value_loss


def numbers(values: Any) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def assert_near(ours: torch.Tensor, theirs: Any) -> None:
    torch.testing.assert_close(ours.double(), numbers(theirs), rtol=0, atol=1e-6)


# The input: three responses of at most five tokens. References with masks take them as 2, 5 and 4 tokens long.
LOGPROBS = numbers(
    [[-1.20, -0.35, -2.10, -0.90, -1.70], [-0.60, -1.45, -0.15, -2.80, -0.75], [-1.05, -0.40, -1.90, -0.55, -3.10]]
)
REFERENCE = numbers(
    [[-1.50, -0.20, -1.80, -0.95, -1.10], [-0.85, -1.10, -0.45, -2.20, -0.70], [-0.65, -0.90, -1.30, -0.85, -2.60]]
)
VALUES = numbers([[0.30, -0.45, 0.80, 0.15, -0.20], [1.10, 0.65, -0.35, 0.50, 0.95], [-0.70, 0.25, 0.40, -0.10, 0.60]])
SCORES = numbers([1.75, -0.90, 0.40])
NEW_LOGPROBS = numbers(
    [[-0.95, -0.60, -2.00, -0.40, -1.95], [-0.62, -1.10, -0.50, -2.55, -0.80], [-1.40, -0.38, -1.55, -0.90, -2.85]]
)
NEW_VALUES = numbers(
    [[0.75, -0.50, 0.35, 0.10, 0.30], [0.95, 1.20, -0.30, 0.05, 1.00], [-0.20, 0.30, 0.90, -0.65, 0.55]]
)
KL_COEF, GAMMA, LAM, CLIP, CLIP_VALUE = 0.15, 0.95, 0.9, 0.2, 0.25

ALL = torch.ones(3, 5, dtype=torch.bool)
TOKENS = torch.tensor([[True, True, False, False, False], [True] * 5, [True, True, True, True, False]])
# SUMMARY and TRL score a response one place *after* its last token, where there is one ("padding_mask_p1"), and give
# that place a value, too; the policy learns from the tokens alone. Ours scores the last token. With the mask that is
# theirs, the formulas are the same.
AND_ONE_MORE = torch.tensor([[True, True, True, False, False], [True] * 5, [True] * 5])


# --- Responses of one length: OPENAI, DETAILS, CLEANRL ---

REWARDS = [
    [-0.045, 0.0225, 0.045, -0.0075, 1.84],
    [-0.0375, 0.0525, -0.045, 0.09, -0.8925],
    [0.06, -0.075, 0.09, -0.045, 0.475],
]
# without and with whitened rewards
PLAIN = SimpleNamespace(
    rewards=REWARDS,
    advantages=[
        [0.7065090255, 1.729835117, 0.5816785, 1.3967, 2.04],
        [-1.421752497, -1.054681283, -0.1458260625, -1.0828375, -1.8425],
        [1.072301666, 0.08748732812, 0.037996875, 0.518125, -0.125],
    ],
    returns=[
        [1.006509025, 1.279835118, 1.3816785, 1.5467, 1.84],
        [-0.3217524973, -0.4046812834, -0.4958260625, -0.5828375, -0.8925],
        [0.3723016655, 0.3374873281, 0.437996875, 0.418125, 0.475],
    ],
    returns_mean=0.4265357446,
    returns_variance=0.6735436996,
    white=[
        [0.483721442, 1.400442306, 0.3718951648, 1.102011615, 1.678295692],
        [-1.422827954, -1.093996467, -0.279821445, -1.119219504, -1.799743991],
        [0.8114075509, -0.07081352974, -0.1151483037, 0.3149623651, -0.2611649423],
    ],
    policy_loss=0.09237874193,
    value_loss=0.676034734,
)
WHITENED = SimpleNamespace(
    rewards=[
        [-0.1727140424, -0.04650327376, -0.004433017548, -0.1025969487, 3.351838534],
        [-0.1586906237, 0.00959040119, -0.1727140424, 0.07970749488, -1.75736036],
        [0.02361381993, -0.2288077174, 0.07970749488, -0.1727140424, 0.7995763234],
    ],
    advantages=[
        [1.232145121, 2.493987325, 1.556129355, 2.594224998, 3.551838534],
        [-2.141605331, -1.754871003, -0.9145747413, -1.832585613, -2.70736036],
        [0.9905139559, 0.03438612389, 0.1557822705, 0.6679237141, 0.1995763234],
    ],
    returns=[
        [1.532145121, 2.043987325, 2.356129355, 2.744224998, 3.351838534],
        [-1.041605331, -1.104871003, -1.264574741, -1.332585613, -1.75736036],
        [0.2905139559, 0.2843861239, 0.5557822705, 0.5679237141, 0.7995763234],
    ],
    returns_mean=0.5350340449,
    returns_variance=2.450221832,
    white=[
        [0.5292632332, 1.22703667, 0.7084200186, 1.282466093, 1.812007177],
        [-1.336353117, -1.122496788, -0.657829805, -1.165471409, -1.649204304],
        [0.3956460442, -0.1330734749, -0.06594384004, 0.217260109, -0.04172660689],
    ],
    policy_loss=0.06810143141,
    value_loss=1.72949187,
)


@pytest.mark.parametrize("theirs", [PLAIN, WHITENED], ids=["rewards as they are", "rewards whitened"])
def test_an_update_of_the_paper(theirs: SimpleNamespace) -> None:
    """OPENAI and DETAILS, which agree in every digit (but DETAILS takes the variance of returns with n - 1).

    Their losses are means over a mini-batch that has no padding: our sums over its 15 tokens.
    """
    rewards = token_rewards(SCORES, kl_estimate(LOGPROBS, REFERENCE, "k1"), ALL, KL_COEF)
    assert_near(rewards, REWARDS)
    if theirs is WHITENED:
        rewards = whiten(rewards, ALL, shift_mean=False)
    assert_near(rewards, theirs.rewards)
    advantages, returns = gae(rewards, VALUES, ALL, GAMMA, LAM)
    assert_near(advantages, theirs.advantages)
    assert_near(returns, theirs.returns)
    assert_near(returns.mean(), theirs.returns_mean)
    assert_near(returns.var(correction=0), theirs.returns_variance)
    advantages = whiten(advantages, ALL, shift_mean=True)
    assert_near(advantages, theirs.white)
    policy = policy_loss(NEW_LOGPROBS, LOGPROBS, advantages, ALL, CLIP)
    assert_near(policy.loss / 15, theirs.policy_loss)
    assert_near(policy.clipped / 15, 0.200000003)  # a float32 mean
    assert_near(policy.approx_kl / 15, 0.03961)
    value = value_loss(NEW_VALUES, VALUES, returns, ALL, CLIP_VALUE)
    assert_near(value.loss / 15, theirs.value_loss)
    assert_near(value.clipped / 15, 0.2666666806)


def test_the_adaptive_kl_coefficient_of_the_paper() -> None:
    """OPENAI and DETAILS, `AdaptiveKLController(0.2)`, target 6, horizon 1000; `update(kl, 64)` five times over."""
    kl_coef, found = 0.2, []
    for kl in (3.0, 6.3, 9.0, -1.0, 5.7):
        kl_coef = adapt_kl_coef(kl_coef, kl, target=6.0, horizon=1000, episodes=64)
        found.append(kl_coef)
    assert_near(numbers(found), [0.19744, 0.198071808, 0.2006071271, 0.1980393559, 0.19740563])


def test_gae_and_losses_of_cleanrl() -> None:
    """CLEANRL, three environments of five steps that end there; a next value of 9, which must not count.

    Its advantages and returns are OPENAI's (`PLAIN`). It clips values with the policy's range, 0.2.
    """
    rewards = token_rewards(SCORES, kl_estimate(LOGPROBS, REFERENCE, "k1"), ALL, KL_COEF)
    advantages, returns = gae(rewards, VALUES, ALL, GAMMA, LAM)
    assert_near(advantages, PLAIN.advantages)
    assert_near(returns, PLAIN.returns)
    # norm_adv off. Its clipfrac counts every ratio beyond the range, 11 of 15; ours, as OPENAI's, those where the
    # clipped term decides.
    policy = policy_loss(NEW_LOGPROBS, LOGPROBS, advantages, ALL, CLIP)
    assert_near(policy.loss / 15, -0.06985347955)
    beyond = ((NEW_LOGPROBS - LOGPROBS).exp() - 1).abs() > CLIP
    assert beyond.sum() == 11 and policy.clipped <= beyond.sum()
    # norm_adv on: (A - mean) / (deviation + 1e-8), the variance with n - 1 where ours has n: a factor, to 1e-8
    white = whiten(advantages, ALL, shift_mean=True) * math.sqrt(14 / 15)
    assert_near(
        white,
        [
            [0.4673193082, 1.352955799, 0.3592848612, 1.064644362, 1.62138767],
            [-1.374582389, -1.056900993, -0.2703331975, -1.081268761, -1.738717873],
            [0.783894164, -0.06841236889, -0.1112438295, 0.3042825515, -0.2523093036],
        ],
    )
    assert_near(policy_loss(NEW_LOGPROBS, LOGPROBS, white, ALL, CLIP).loss / 15, 0.0892463431)
    assert_near(value_loss(NEW_VALUES, VALUES, returns, ALL, 0.2).loss / 15, 0.6893735613)
    # approx_kl and old_approx_kl: KL(old || new) by k3 and by k1
    assert_near(kl_estimate(LOGPROBS, NEW_LOGPROBS, "k3").mean(), 0.04115992061)
    assert_near(kl_estimate(LOGPROBS, NEW_LOGPROBS, "k1").mean(), -0.03)
    assert explained_variance(VALUES, returns, ALL) == pytest.approx(-0.8500696628, abs=1e-6)


# --- Responses of different lengths: SUMMARY, TRL ---


def rewards_and_kl(estimator: Literal["k1", "k3"]) -> tuple[torch.Tensor, torch.Tensor]:
    """Ours under their masks: KL at the tokens, the score one place after the last where there is one."""
    kl = torch.where(TOKENS, kl_estimate(LOGPROBS, REFERENCE, estimator), 0.0)
    return token_rewards(SCORES, kl, AND_ONE_MORE, KL_COEF), kl


K1_REWARDS = [
    [-0.045, 0.0225, 1.75, 0.0, 0.0],
    [-0.0375, 0.0525, -0.045, 0.09, -0.8925],
    [0.06, -0.075, 0.09, -0.045, 0.4],
]
K1_ADVANTAGES = [
    [0.97576125, 2.04475, 0.95, 0.0, 0.0],
    [-1.421752497, -1.054681283, -0.1458260625, -1.0828375, -1.8425],
    [1.032221849, 0.04061035, -0.01683, 0.454, -0.2],
]
K1_RETURNS = [
    [1.27576125, 1.59475, 1.75, 0.0, 0.0],
    [-0.3217524973, -0.4046812834, -0.4958260625, -0.5828375, -0.8925],
    [0.3322218492, 0.29061035, 0.38317, 0.354, 0.4],
]


def test_an_update_of_the_summarisation_study() -> None:
    """SUMMARY, with n in the variance like ours. Its losses are means over the mask: our sums over its count."""
    rewards, kl = rewards_and_kl("k1")
    assert_near(kl, [[0.3, -0.15, 0.0, 0.0, 0.0], [0.25, -0.35, 0.3, -0.6, -0.05], [-0.4, 0.5, -0.6, 0.3, 0.0]])
    assert_near(rewards, K1_REWARDS)
    advantages, returns = gae(rewards, VALUES, AND_ONE_MORE, GAMMA, LAM)
    assert_near(advantages, K1_ADVANTAGES)
    assert_near(returns, K1_RETURNS)
    white = whiten(advantages, TOKENS, shift_mean=True)
    assert_near(
        white,
        [
            [0.9456994102, 1.892076366, 0.0, 0.0, 0.0],
            [-1.176822236, -0.8518536732, -0.04724311277, -0.8767804037, -1.549310479],
            [0.9956840429, 0.1178092552, 0.06695724802, 0.4837835823, 0.0],
        ],
    )
    policy = policy_loss(NEW_LOGPROBS, LOGPROBS, white, TOKENS, CLIP)
    assert_near(policy.loss / 11, 0.1043835552)
    assert_near(policy.clipped / 11, 0.2727272809)
    assert_near(policy.approx_kl / 15, 0.02677666667)  # theirs counts padding, where it is 0; ours is over the tokens
    value = value_loss(NEW_VALUES, VALUES, returns, AND_ONE_MORE, CLIP_VALUE)
    assert_near(value.loss / 13, 0.6650067009)
    assert_near(value.clipped / 13, 0.2307692319)


def test_an_update_of_the_summarisation_study_with_whitened_rewards() -> None:
    """SUMMARY."""
    rewards = whiten(rewards_and_kl("k1")[0], AND_ONE_MORE, shift_mean=False)
    assert_near(
        rewards,
        [
            [-0.1656293224, -0.0427093065, 3.103132583, 0.0, 0.0],
            [-0.1519715429, 0.01192181169, -0.1656293224, 0.08021070944, -1.708958411],
            [0.02557959124, -0.2202604406, 0.08021070944, -0.1656293224, 0.6447322641],
        ],
    )
    advantages, returns = gae(rewards, VALUES, AND_ONE_MORE, GAMMA, LAM)
    assert_near(
        advantages,
        [
            [1.788551717, 3.136469052, 2.303132583, 0.0, 0.0],
            [-2.101533382, -1.7158618, -0.8716767386, -1.790698732, -2.658958411],
            [0.921835362, -0.04823886462, 0.04914804212, 0.5426167634, 0.04473226411],
        ],
    )
    assert_near(
        returns,
        [
            [2.088551717, 2.686469052, 3.103132583, 0.0, 0.0],
            [-1.001533382, -1.0658618, -1.221676739, -1.290698732, -1.708958411],
            [0.221835362, 0.2017611354, 0.4491480421, 0.4426167634, 0.6447322641],
        ],
    )
    white = whiten(advantages, TOKENS, shift_mean=True)
    assert_near(
        white,
        [
            [1.1970704, 1.98864752, 0.0, 0.0, 0.0],
            [-1.087418625, -0.8609293644, -0.3651737554, -0.9048780562, -1.414771711],
            [0.6880830772, 0.118397873, 0.175589249, 0.4653833921, 0.0],
        ],
    )
    assert_near(policy_loss(NEW_LOGPROBS, LOGPROBS, white, TOKENS, CLIP).loss / 11, 0.08707504975)
    assert_near(value_loss(NEW_VALUES, VALUES, returns, AND_ONE_MORE, CLIP_VALUE).loss / 13, 1.595070794)


TRL_K1 = SimpleNamespace(
    estimator="k1",
    kl=[[0.3, -0.15, 0.0, 0.0, 0.0], [0.25, -0.35, 0.3, -0.6, -0.05], [-0.4, 0.5, -0.6, 0.3, 0.0]],
    rewards=K1_REWARDS,
    advantages=K1_ADVANTAGES,
    returns=K1_RETURNS,
    white=[
        [0.9016889988, 1.804024012, 0.0, 0.0, 0.0],
        [-1.122055965, -0.8122106004, -0.04504454015, -0.8359773052, -1.477209565],
        [0.9493474756, 0.1123267163, 0.0638412304, 0.4612695422, 0.0],
    ],
    whitened_rewards=[
        [-0.1551329492, -0.03703521994, 2.985391852, 0.0, 0.0],
        [-0.1420109793, 0.01545265975, -0.1551329492, 0.08106250936, -1.63791555],
        [0.02857462967, -0.2076208289, 0.08106250936, -0.1551329492, 0.6234372661],
    ],
)
TRL_K3 = SimpleNamespace(
    estimator="k3",
    kl=[
        [0.04081822068, 0.01183424273, 0.0, 0.0, 0.0],
        [0.02880078307, 0.06906754859, 0.04081822068, 0.2221188004, 0.001271096376],
        [0.09182469764, 0.1065306597, 0.2221188004, 0.04081822068, 0.0],
    ],
    rewards=[
        [-0.006122733102, -0.001775136409, 1.75, 0.0, 0.0],
        [-0.004320117461, -0.01036013229, -0.006122733102, -0.03331782006, -0.9001906645],
        [-0.01377370465, -0.01597959896, -0.03331782006, -0.006122733102, 0.4],
    ],
    advantages=[
        [0.9938832753, 2.020474864, 0.95, 0.0, 0.0],
        [-1.495084536, -1.17925663, -0.2180075997, -1.212730838, -1.850190664],
        [0.9430614953, 0.02261426893, -0.1069077569, 0.4928772669, -0.2],
    ],
    returns=[
        [1.293883275, 1.570474864, 1.75, 0.0, 0.0],
        [-0.3950845362, -0.5292566301, -0.5680075997, -0.7127308382, -0.9001906645],
        [0.2430614953, 0.2726142689, 0.2930922431, 0.3928772669, 0.4],
    ],
    white=[
        [0.9436639698, 1.794673952, 0.0, 0.0, 0.0],
        [-1.119606835, -0.8577960977, -0.06095290374, -0.8855450931, -1.413977901],
        [0.9015344194, 0.138514552, 0.03114513835, 0.5283467988, 0.0],
    ],
    whitened_rewards=[
        [-0.07481602199, -0.06722816145, 2.990144994, 0.0, 0.0],
        [-0.0716699169, -0.08221155481, -0.07481602199, -0.1222796074, -1.635232788],
        [-0.08816926267, -0.09201921002, -0.1222796074, -0.07481602199, 0.6339899865],
    ],
)


@pytest.mark.parametrize("theirs", [TRL_K1, TRL_K3], ids=["k1", "k3"])
def test_rewards_and_advantages_of_trl(theirs: SimpleNamespace) -> None:
    """TRL whitens with n - 1 in the variance, n the mask's count: ours times sqrt((n - 1) / n)."""
    rewards, kl = rewards_and_kl(theirs.estimator)
    assert_near(kl, theirs.kl)
    assert_near(rewards, theirs.rewards)
    advantages, returns = gae(rewards, VALUES, AND_ONE_MORE, GAMMA, LAM)
    assert_near(advantages, theirs.advantages)
    assert_near(returns, theirs.returns)
    assert_near(whiten(advantages, TOKENS, shift_mean=True) * math.sqrt(10 / 11), theirs.white)
    mean = rewards[AND_ONE_MORE].mean()
    shifted = (whiten(rewards, AND_ONE_MORE, shift_mean=False) - mean) * math.sqrt(12 / 13) + mean
    assert_near(torch.where(AND_ONE_MORE, shifted, 0.0), theirs.whitened_rewards)


def test_losses_of_trl() -> None:
    """TRL, k3, rewards not whitened: from its own whitened advantages and returns.

    A mean over a micro-batch; over several, TRL takes the mean of their means, so that a token of a short response
    weighs more than one of a long response. Ours is the mean over all tokens of the optimiser step.
    """
    policy = policy_loss(NEW_LOGPROBS, LOGPROBS, numbers(TRL_K3.white), TOKENS, CLIP)
    assert_near(policy.loss / 11, 0.1026502227)
    assert_near(policy.clipped / 11, 0.2727272809)
    assert_near(policy.approx_kl / 15, 0.02677666667)  # counts padding, where it is 0
    value = value_loss(NEW_VALUES, VALUES, numbers(TRL_K3.returns), AND_ONE_MORE, CLIP_VALUE)
    assert_near(value.loss / 13, 0.6987971894)
    assert_near(value.clipped / 13, 0.2307692319)


# --- From a model's outputs: log-probabilities, entropies, scores ---

LOGITS = [
    [[0.30, -1.20, 0.85, 2.10], [1.40, 0.05, -0.60, 0.75], [-0.90, 0.40, 1.65, -0.25]],
    [[2.30, 0.15, -1.10, 0.50], [0.00, 0.00, 0.00, 0.00], [-0.35, 1.95, 0.70, -2.40]],
]
RESPONSES = [[3, 0, 1], [2, 1, 1]]


@pytest.mark.parametrize("trained", [False, True], ids=["frozen head", "trained head"])
def test_log_probabilities_and_entropies(trained: bool) -> None:
    """OPENAI's `logprobs_from_logits` and `entropy_from_logits` of logits / 0.7; CLEANRL's `Categorical`, the same.

    SUMMARY and TRL divide by temperature + 1e-7, which changes the seventh digit (SUMMARY gave -0.2255964452 first).
    """
    head = torch.nn.Linear(4, 4, bias=False).requires_grad_(trained)
    torch.nn.init.eye_(head.weight)  # so that states are logits
    model: Any = SimpleNamespace(
        config=SimpleNamespace(get_text_config=lambda: SimpleNamespace(model_type="")),
        get_output_embeddings=lambda: head,
    )
    rows = to_rows([[0], [0]], RESPONSES, "cpu")
    states = torch.nn.functional.pad(torch.tensor(LOGITS), (0, 0, 0, 1))  # the last token predicts nothing
    logprobs, entropies = response_logprobs(model, states, rows, 0.7, entropy=True)
    assert entropies is not None
    assert_near(logprobs, [[-0.2255963839, -0.4686940733, -2.016910886], [-4.979850488, -1.386294361, -0.18821395]])
    assert_near(entropies, [[0.6551159087, 0.9764317455, 0.687199091], [0.455865918, 1.386294361, 0.5484081648]])


def test_a_reward_model_is_read_at_the_last_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """TRL's `get_reward` on a stand-in whose state at a token is the sum of cos(position) * embedding up to it.

    Its rows were [5 5 1 2 3 0 5 5], [2 4 0 1 1 4 3 2] and [5 3 3 0 4 2 1 5] with padding 5 and four places for the
    prompt, so it reads places 5, 7 and 6. It takes for the end what comes before the first padding id; a tokenizer
    that pads with its end token would make it read one token early. Ours knows each row's length.
    """
    rows = [[1, 2, 3, 0], [2, 4, 0, 1, 1, 4, 3, 2], [3, 3, 0, 4, 2, 1]]
    embedding = numbers([[0.9, -0.4], [0.25, 0.6], [-0.75, 0.1], [0.35, -0.95], [-0.2, 0.45]])
    head = torch.nn.Linear(2, 1, bias=False, dtype=torch.float64)
    head.weight.data = numbers([[1.3, -0.7]])

    def states(ids: torch.Tensor) -> torch.Tensor:
        return (embedding[ids] * torch.arange(ids.shape[1]).cos()[:, None]).cumsum(1)

    def row(_: Any, prompt: int, response: str) -> Sequence[int]:
        return rows[prompt]

    monkeypatch.setattr(scoring, "load_tokenizer", lambda _: None)
    monkeypatch.setattr(scoring, "conversation_ids", row)
    model = scoring.RewardModel(SimpleNamespace(name="stand-in"), states, head, "cpu", context=99)  # type: ignore[arg-type]
    assert_near(numbers(model.scores([0, 1, 2], [""] * 3, batch_size=2)), [-2.561189487, -1.678484199, 2.347081031])
