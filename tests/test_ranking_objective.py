from __future__ import annotations

import torch
from boards import small_config

from widedeep import Recommender, WideDeepNet
from widedeep.datasets import Dataset
from widedeep.features import FeatureProcessor
from widedeep.histories import Histories
from widedeep.ranking_objective import AVERAGED_STEPS, RankingObjective
from widedeep.split import Split


def objective(board: Dataset, board_split: Split) -> RankingObjective:
    processor = FeatureProcessor.fit(board_split.train, board.items, board.users, 4.0)
    encoded = processor.encode(board_split.train)
    net = WideDeepNet.for_data(small_config().model, processor, encoded)
    histories = Histories.from_encoded(encoded, processor.user_count)
    return RankingObjective(small_config(), net, histories, None, torch.device("cpu"))


def test_what_is_kept_is_the_average_of_the_last_weights(board: Dataset, board_split: Split) -> None:
    ranking = objective(board, board_split)
    learned, kept = ranking.learned.item_bias, ranking.module.item_bias

    def set_and_average(value: float, step: int) -> None:
        with torch.no_grad():
            learned.fill_(value)
        ranking.after_step(step)

    set_and_average(3.0, 1)
    assert torch.equal(kept, torch.full_like(kept, 3.0))  # the first weights are all that there is
    set_and_average(6.0, 2)
    torch.testing.assert_close(kept, torch.full_like(kept, 5.0))
    set_and_average(0.0, 10 * AVERAGED_STEPS)
    torch.testing.assert_close(kept, torch.full_like(kept, 5.0 * (1 - 1 / AVERAGED_STEPS)))
    assert torch.equal(ranking.snapshot()["item_bias"], kept)


def test_what_was_turned_down_is_read_apart_from_what_was_liked(trained: Recommender) -> None:
    net = trained.net
    assert net.deep.tells_apart
    both = Histories.from_lists([[1, 2], [1, 2]], [[True, True], [True, False]], [[5.0, 5.0], [5.0, 1.0]])
    reading = net.read(both)
    features = net.user_features[torch.zeros(2, dtype=torch.int64)]
    liked, turned_down = net.deep(reading.entries, reading.entry_weights, features, net.item_features)
    assert not torch.allclose(liked, turned_down)
    assert reading.liked.lengths.tolist() == [2, 1]
    assert reading.entries.lengths.tolist() == [2, 2]


def test_data_of_likes_alone_has_one_vector_for_an_item(board: Dataset, board_split: Split) -> None:
    rows = board_split.train.take(board_split.train.liked(4.0))
    processor = FeatureProcessor.fit(rows, board.items, board.users, 4.0)
    net = WideDeepNet.for_data(small_config().model, processor, processor.encode(rows))
    assert len(net.deep.read.weight) == net.item_count
    mixed = Histories.from_lists([[1, 2]], [[True, False]], [[5.0, 1.0]])
    assert net.read(mixed).entries.item_index.tolist() == [1]
    again = WideDeepNet.from_state(
        small_config().model, net.warm_count, processor.item_table.genres, net.state_dict()
    )
    assert not again.deep.tells_apart
