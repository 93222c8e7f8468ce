"""Train one model, judge it beside the baselines, and log it.

    mlflow run . -e train -P dataset=ml-latest-small
    python -m experiments train --dataset ml-latest-small --wide-l2 200
    python -m experiments train --dataset files --ratings train.csv --user-col user --item-col item \\
        --split none --register mymodel --alias champion

torchrun starts it in several processes, which share every batch; the others than the first are in `follow`. With
--checkpoint FILE and torchrun --max-restarts N a training of which a process dies goes on where it was.

    torchrun --nproc-per-node 2 --max-restarts 3 -m experiments train --dataset ml-25m --checkpoint train.ckpt

With --split none there is no test part and nothing to judge by: the validation part is cut from everything, and
the final model is trained on everything. An alias that is asked for here is given without a gate.
"""

from __future__ import annotations

from experiments import publish, recipe, registry, summary, vetting
from experiments.jobs import JobConfig
from experiments.progress import Console
from experiments.recipe import both, on_data
from experiments.stages import live_curves, make, start, timed, validation_line
from experiments.tracking import open_run
from widedeep.config import Config
from widedeep.distributed import World
from widedeep.launch import restarts


def job(config: Config, job_config: JobConfig, console: Console) -> None:
    """The entry point `train`."""
    with open_run("train", config.data.dataset, job_config.experiment, job_config.run_name) as run:
        registry.check_may_write(job_config.register)
        data = start(config, job_config, run, console)
        if job_config.register:
            vetting.vet(data, job_config, run, console)
        world = World.current()
        run.tags({"processes": world.size, "restarts": restarts()})
        world.first(lambda: data.dataset.digest)  # the others read it now
        with console.training("train") as shown:
            selection = timed(
                run,
                "select",
                lambda: recipe.select(on_data(config, data.config), data, both(shown, live_curves(run))),
            )
        console.say(f"train: {validation_line(selection)}")
        made = make(selection, data, job_config, run, console)
        published = timed(
            run, "register", lambda: publish.publish(made, data, job_config, run, console, "not asked")
        )
        if published.version is not None and job_config.alias:
            publish.give_alias(
                published.version, job_config.alias, "asked for by train --alias, without a gate", console
            )
        summary.finish(run, made, data, published, job_config, console)
