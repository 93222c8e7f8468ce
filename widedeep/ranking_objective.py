"""How the deep side of the ranking is trained."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from widedeep.config import Config
from widedeep.dropout import take_part
from widedeep.gradients import LookedUp
from widedeep.histories import Histories
from widedeep.mixture import Mixture
from widedeep.model import WideDeepNet
from widedeep.objective import Head, adam
from widedeep.sampling import UserBatch, UserBatches

AVERAGED_STEPS = 50  # that the kept weights are averaged over


class RankingObjective(Head):
    """Find one part of a user's likes from the other: multinomial likelihood over the catalogue.

    Where recent entries count more (the network's recency is above zero) the parts are earlier and later ones,
    else random ones. What is judged and kept is the moving average of the weights over the last steps (Polyak &
    Juditsky 1992), which is better than any of those that it averages.
    """

    head = "ranking"
    rate_setting = "ranking_learning_rate"
    notable = 0.0

    def __init__(
        self,
        config: Config,
        net: WideDeepNet,
        histories: Histories,
        mixture: Mixture | None,
        device: torch.device,
    ) -> None:
        """histories  of all users by user_index, on the device;  mixture  of the validation part's users"""
        self.net = net
        self.module = net.deep
        self.patience = config.train.ranking_patience
        self.learned = copy.deepcopy(net.deep)
        self.learning_rate = config.train.ranking_learning_rate
        self.weight_decay = config.train.ranking_decay
        self.histories = histories
        self.recency = float(net.recency)
        self.batches: UserBatches = UserBatches(
            net.read(histories).entries,
            config.train.user_batch_size,
            bool(net.likes_only),
            self.recency > 0,
            device,
        )
        self.mixture = mixture

    def optimizers(self) -> list[torch.optim.Optimizer]:
        group = {"params": list(self.learned.parameters()), "weight_decay": self.weight_decay}
        return [adam([group], self.learning_rate)]

    def rate(self, done: float) -> float:  # noqa: ARG002
        return self.learning_rate

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Move the average towards the weights; the first steps count little in the end."""
        share = max(1 / AVERAGED_STEPS, 2 / (step + 1))
        for average, latest in zip(self.module.parameters(), self.learned.parameters(), strict=True):
            average.lerp_(latest, share)

    def loss(self, batch: UserBatch) -> Tensor:
        """Per hidden like, so that the scale does not depend on how long histories are."""
        net, visible, hidden = self.net, batch.visible, batch.hidden
        take_part(self.learned, batch.part)
        weights = visible.recency_weights(self.recency)
        users = net.user_features[batch.user_index]
        logits = self.learned(visible, weights, users, net.item_features).float()
        read = (visible.row_index, visible.item_index.long())
        logits = logits.index_put(read, logits.new_full((), -torch.inf))  # what was read is not to be found
        catalogue = logits[:, 1 : net.warm_count + 1].log_softmax(1)
        found = catalogue[hidden.row_index, hidden.item_index.long() - 1]
        loss: Tensor = -found.sum() / (batch.part.total * self.batches.mean_hidden)
        return loss

    def looked_up(self, batch: UserBatch) -> list[LookedUp]:
        return [LookedUp([self.learned.read.weight], self.learned.rows(batch.visible))]

    def validate(self) -> dict[str, float]:
        if self.mixture is None:
            return {}
        item_log_loss = self.mixture.update_deep()
        shares = (float(self.net.deep_share), float(self.net.factor_share))
        return {
            "item_log_loss": item_log_loss,
            "ndcg_at_10": float(self.mixture.ndcg(*shares).nanmean()),
        }

    def quality(self, metrics: dict[str, float]) -> float | None:
        """By the likelihood and not by NDCG, which is noisy: its maximum over many epochs is luck."""
        return -metrics["item_log_loss"] if "item_log_loss" in metrics else None
