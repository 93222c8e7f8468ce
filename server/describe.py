"""What the server says of its models and of its registry, in protobuf."""

from __future__ import annotations

from server.pb import recommender_pb2 as pb
from server.served import ServedModel
from server.shadow import Agreement
from server.store_status import ModelState, ModelStatus, StoreStatus

STATES = {state: pb.ModelState.Value(f"MODEL_STATE_{state.name}") for state in ModelState}


SLOTS = (ModelState.SERVING, ModelState.SHADOW, ModelState.ABSENT)  # what an alias can be now


def to_model_response(model: ServedModel, status: StoreStatus, agreement: Agreement) -> pb.GetModelResponse:
    about = model.recommender.describe()
    method = model.ranking
    return pb.GetModelResponse(
        model=pb.ModelVersion(name=model.name, version=model.version, alias=model.alias),
        dataset=about.get("dataset", ""),
        user_count=about["users"],
        item_count=about["items"],
        like_threshold=about["like_threshold"],
        created_at=about.get("created", ""),
        device=about["device"],
        metrics={
            name: value for name, value in about.get("metrics", {}).items() if isinstance(value, int | float)
        },
        ranking=pb.RankingMethod(
            precision=method.precision,
            precision_agreement=method.precision_agreement,
            approximate=method.approximate,
            recall=method.recall,
        ),
        registry=to_registry_status(status),
        slots=[_model(found, agreement) for found in status.models if found.state in SLOTS],
    )


def to_models_response(status: StoreStatus, agreement: Agreement) -> pb.ListModelsResponse:
    return pb.ListModelsResponse(models=[_model(model, agreement) for model in status.models])


def to_registry_status(status: StoreStatus) -> pb.RegistryStatus | None:
    registry, counts = status.registry, status.counts
    if registry is None:
        return None
    return pb.RegistryStatus(
        following=registry.following,
        reachable=registry.reachable,
        error=registry.error,
        seconds_since_answer=registry.seconds_since_answer,
        from_cache=registry.from_cache,
        reload_count=counts.reloads,
        refused_count=counts.refused,
        failure_count=counts.failures,
    )


def _model(model: ModelStatus, agreement: Agreement) -> pb.ModelStatus:
    is_compared = model.is_shadow and model.version == agreement.version
    return pb.ModelStatus(
        model=pb.ModelVersion(name=model.name, version=model.version, alias=model.alias),
        state=STATES[model.state],
        reason=model.reason,
        lease_count=model.leases,
        since=model.since.isoformat(timespec="seconds"),
        share=model.share,
        agreement=_agreement(agreement) if is_compared else None,
    )


def _agreement(found: Agreement) -> pb.ShadowAgreement:
    return pb.ShadowAgreement(
        compared_version=found.compared,
        ranking_count=found.rankings,
        mean_overlap=found.overlap / max(found.rankings, 1),
        same_first_share=found.same_first / max(found.rankings, 1),
        score_count=found.scores,
        mean_difference=found.difference / max(found.scores, 1),
        dropped_count=found.dropped,
        failed_count=found.failed,
    )
