"""One embedding table whose rows lie in blocks in several processes, by TorchRec."""

from __future__ import annotations

import os

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from widedeep.distributed import World
from widedeep.rowwise import EPSILON

try:
    from torchrec import EmbeddingCollection, EmbeddingConfig, KeyedJaggedTensor
    from torchrec.distributed import comm_ops
    from torchrec.distributed.embedding import EmbeddingCollectionSharder
    from torchrec.distributed.sharding_plan import construct_module_sharding_plan, row_wise
    from torchrec.distributed.types import ShardingEnv
    from torchrec.optim import RowWiseAdagrad
    from torchrec.optim.apply_optimizer_in_backward import apply_optimizer_in_backward
except (ImportError, OSError) as error:  # OSError: FBGEMM's library does not load
    MISSING = str(error).splitlines()[0]
else:
    MISSING = ""

INSTALL = (
    "pip install tensordict==0.15.3 torchmetrics==1.0.3 pyre-extensions==0.0.32 tqdm && "
    "pip install --no-deps torchrec==1.9.2 fbgemm-gpu-cpu==1.8.0"
)
LANES = 4  # FBGEMM's rows have a multiple of so many columns
COLLECTED_ROWS = 2**16  # of a table, at once from each process


class ShardedTable(nn.Module):
    """An embedding table (rows, columns) of which each process has a block of rows; read as nn.Embedding is.

    The backward pass moves the rows. A table of one column is the mean of LANES columns, which stay equal: row-wise
    Adagrad moves their mean as it would the one.
    """

    sparse = False  # as nn.Embedding has it, for LikeHead.by_rows

    def __init__(self, rows: int, columns: int, world: World, device: torch.device) -> None:
        super().__init__()
        self.columns, self.rows = columns, rows
        width = LANES if columns == 1 else columns
        config = EmbeddingConfig(rows, width, name="table", feature_names=["index"])
        whole = EmbeddingCollection(tables=[config], device=torch.device("meta"))
        apply_optimizer_in_backward(RowWiseAdagrad, whole.parameters(), {"lr": 0.0, "eps": EPSILON})
        sharder = EmbeddingCollectionSharder()
        local = int(os.environ.get("LOCAL_WORLD_SIZE", world.size))
        plan = construct_module_sharding_plan(
            whole, {"table": row_wise()}, sharder, local, world.size, device.type
        )
        self.sharded = sharder.shard(whole, plan, ShardingEnv.from_process_group(dist.group.WORLD), device)

    def forward(self, index: Tensor) -> Tensor:
        """(rows, columns) of index (rows,) int; all processes call it together, each for rows of its own."""
        ones = torch.ones(len(index), dtype=torch.int32, device=index.device)
        found = self.sharded(KeyedJaggedTensor(keys=["index"], values=index.long(), lengths=ones)).wait()
        rows: Tensor = found["index"].values()
        return rows if self.columns == rows.shape[1] else rows.mean(1, keepdim=True)

    @property
    def weight(self) -> nn.Parameter:
        """This process's block."""
        block: nn.Parameter = next(self.sharded.parameters())
        return block

    def set_rate(self, rate: float) -> None:
        """For the backward passes that follow."""
        for group in self.sharded.fused_optimizer.param_groups:
            group["lr"] = rate
        self.sharded.fused_optimizer.step()  # moves nothing: it hands the rate over

    def collect(self, world: World) -> Tensor:
        """(rows, columns) the whole table, on the CPU of rank 0; empty in the others."""
        whole = torch.empty(self.rows if world.rank == 0 else 0, self.columns)
        block, own = -(-self.rows // world.size), self.weight.detach()
        for start in range(0, block, COLLECTED_ROWS):
            length = min(COLLECTED_ROWS, block - start)
            piece = own[start : start + length]
            parts = world.gather(F.pad(piece, (0, 0, 0, length - len(piece)))).cpu()
            for rank, part in enumerate(parts if world.rank == 0 else ()):
                place = whole[rank * block + start : min((rank + 1) * block, rank * block + start + length)]
                place.copy_(part[: len(place), : self.columns])
        return whole


def keep_gradients() -> None:
    """Do not divide gradients by the number of processes: the loss of each is its share of the batch's mean."""
    comm_ops.set_gradient_division(False)
