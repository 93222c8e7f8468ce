from google.rpc import status_pb2 as _status_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ColdStartReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    COLD_START_REASON_UNSPECIFIED: _ClassVar[ColdStartReason]
    COLD_START_REASON_NO_USER: _ClassVar[ColdStartReason]
    COLD_START_REASON_UNKNOWN_USER: _ClassVar[ColdStartReason]
    COLD_START_REASON_UNKNOWN_HISTORY: _ClassVar[ColdStartReason]
    COLD_START_REASON_NO_LIKES: _ClassVar[ColdStartReason]

class Fallback(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FALLBACK_UNSPECIFIED: _ClassVar[Fallback]
    FALLBACK_POPULARITY: _ClassVar[Fallback]
    FALLBACK_ERROR: _ClassVar[Fallback]

class ModelState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MODEL_STATE_UNSPECIFIED: _ClassVar[ModelState]
    MODEL_STATE_LOADING: _ClassVar[ModelState]
    MODEL_STATE_SERVING: _ClassVar[ModelState]
    MODEL_STATE_RETIRING: _ClassVar[ModelState]
    MODEL_STATE_REFUSED: _ClassVar[ModelState]
    MODEL_STATE_SHADOW: _ClassVar[ModelState]
    MODEL_STATE_ABSENT: _ClassVar[ModelState]
COLD_START_REASON_UNSPECIFIED: ColdStartReason
COLD_START_REASON_NO_USER: ColdStartReason
COLD_START_REASON_UNKNOWN_USER: ColdStartReason
COLD_START_REASON_UNKNOWN_HISTORY: ColdStartReason
COLD_START_REASON_NO_LIKES: ColdStartReason
FALLBACK_UNSPECIFIED: Fallback
FALLBACK_POPULARITY: Fallback
FALLBACK_ERROR: Fallback
MODEL_STATE_UNSPECIFIED: ModelState
MODEL_STATE_LOADING: ModelState
MODEL_STATE_SERVING: ModelState
MODEL_STATE_RETIRING: ModelState
MODEL_STATE_REFUSED: ModelState
MODEL_STATE_SHADOW: ModelState
MODEL_STATE_ABSENT: ModelState

class History(_message.Message):
    __slots__ = ("item_ids", "ratings")
    ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    RATINGS_FIELD_NUMBER: _ClassVar[int]
    item_ids: _containers.RepeatedScalarFieldContainer[str]
    ratings: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, item_ids: _Optional[_Iterable[str]] = ..., ratings: _Optional[_Iterable[float]] = ...) -> None: ...

class ModelVersion(_message.Message):
    __slots__ = ("name", "version", "alias")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ALIAS_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    alias: str
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ..., alias: _Optional[str] = ...) -> None: ...

class ItemDetails(_message.Message):
    __slots__ = ("titles", "genres", "years")
    TITLES_FIELD_NUMBER: _ClassVar[int]
    GENRES_FIELD_NUMBER: _ClassVar[int]
    YEARS_FIELD_NUMBER: _ClassVar[int]
    titles: _containers.RepeatedScalarFieldContainer[str]
    genres: _containers.RepeatedScalarFieldContainer[str]
    years: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, titles: _Optional[_Iterable[str]] = ..., genres: _Optional[_Iterable[str]] = ..., years: _Optional[_Iterable[int]] = ...) -> None: ...

class RecommendRequest(_message.Message):
    __slots__ = ("user_id", "k", "exclude_seen", "exclude_item_ids", "candidate_item_ids", "genres", "year_from", "year_to", "history", "include_details", "request_id", "include_cold_items", "explain", "diversity", "fallback", "model_version")
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    K_FIELD_NUMBER: _ClassVar[int]
    EXCLUDE_SEEN_FIELD_NUMBER: _ClassVar[int]
    EXCLUDE_ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    CANDIDATE_ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    GENRES_FIELD_NUMBER: _ClassVar[int]
    YEAR_FROM_FIELD_NUMBER: _ClassVar[int]
    YEAR_TO_FIELD_NUMBER: _ClassVar[int]
    HISTORY_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_DETAILS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_COLD_ITEMS_FIELD_NUMBER: _ClassVar[int]
    EXPLAIN_FIELD_NUMBER: _ClassVar[int]
    DIVERSITY_FIELD_NUMBER: _ClassVar[int]
    FALLBACK_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    user_id: str
    k: int
    exclude_seen: bool
    exclude_item_ids: _containers.RepeatedScalarFieldContainer[str]
    candidate_item_ids: _containers.RepeatedScalarFieldContainer[str]
    genres: _containers.RepeatedScalarFieldContainer[str]
    year_from: int
    year_to: int
    history: History
    include_details: bool
    request_id: str
    include_cold_items: bool
    explain: int
    diversity: float
    fallback: Fallback
    model_version: str
    def __init__(self, user_id: _Optional[str] = ..., k: _Optional[int] = ..., exclude_seen: _Optional[bool] = ..., exclude_item_ids: _Optional[_Iterable[str]] = ..., candidate_item_ids: _Optional[_Iterable[str]] = ..., genres: _Optional[_Iterable[str]] = ..., year_from: _Optional[int] = ..., year_to: _Optional[int] = ..., history: _Optional[_Union[History, _Mapping]] = ..., include_details: _Optional[bool] = ..., request_id: _Optional[str] = ..., include_cold_items: _Optional[bool] = ..., explain: _Optional[int] = ..., diversity: _Optional[float] = ..., fallback: _Optional[_Union[Fallback, str]] = ..., model_version: _Optional[str] = ...) -> None: ...

class Reasons(_message.Message):
    __slots__ = ("counts", "history_item_ids", "contributions", "wide_contributions", "titles")
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    HISTORY_ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    CONTRIBUTIONS_FIELD_NUMBER: _ClassVar[int]
    WIDE_CONTRIBUTIONS_FIELD_NUMBER: _ClassVar[int]
    TITLES_FIELD_NUMBER: _ClassVar[int]
    counts: _containers.RepeatedScalarFieldContainer[int]
    history_item_ids: _containers.RepeatedScalarFieldContainer[str]
    contributions: _containers.RepeatedScalarFieldContainer[float]
    wide_contributions: _containers.RepeatedScalarFieldContainer[float]
    titles: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, counts: _Optional[_Iterable[int]] = ..., history_item_ids: _Optional[_Iterable[str]] = ..., contributions: _Optional[_Iterable[float]] = ..., wide_contributions: _Optional[_Iterable[float]] = ..., titles: _Optional[_Iterable[str]] = ...) -> None: ...

class RecommendResponse(_message.Message):
    __slots__ = ("request_id", "item_ids", "scores", "details", "cold_start", "cold_start_reason", "unknown_item_ids", "model", "reasons")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    DETAILS_FIELD_NUMBER: _ClassVar[int]
    COLD_START_FIELD_NUMBER: _ClassVar[int]
    COLD_START_REASON_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    REASONS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    item_ids: _containers.RepeatedScalarFieldContainer[str]
    scores: _containers.RepeatedScalarFieldContainer[float]
    details: ItemDetails
    cold_start: bool
    cold_start_reason: ColdStartReason
    unknown_item_ids: _containers.RepeatedScalarFieldContainer[str]
    model: ModelVersion
    reasons: Reasons
    def __init__(self, request_id: _Optional[str] = ..., item_ids: _Optional[_Iterable[str]] = ..., scores: _Optional[_Iterable[float]] = ..., details: _Optional[_Union[ItemDetails, _Mapping]] = ..., cold_start: _Optional[bool] = ..., cold_start_reason: _Optional[_Union[ColdStartReason, str]] = ..., unknown_item_ids: _Optional[_Iterable[str]] = ..., model: _Optional[_Union[ModelVersion, _Mapping]] = ..., reasons: _Optional[_Union[Reasons, _Mapping]] = ...) -> None: ...

class RecommendStreamRequest(_message.Message):
    __slots__ = ("request",)
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    request: RecommendRequest
    def __init__(self, request: _Optional[_Union[RecommendRequest, _Mapping]] = ...) -> None: ...

class RecommendStreamResponse(_message.Message):
    __slots__ = ("request_id", "status", "response")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    status: _status_pb2.Status
    response: RecommendResponse
    def __init__(self, request_id: _Optional[str] = ..., status: _Optional[_Union[_status_pb2.Status, _Mapping]] = ..., response: _Optional[_Union[RecommendResponse, _Mapping]] = ...) -> None: ...

class ScoreRequest(_message.Message):
    __slots__ = ("user_id", "item_ids", "history", "include_details", "request_id", "fallback", "model_version")
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    HISTORY_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_DETAILS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    FALLBACK_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    user_id: str
    item_ids: _containers.RepeatedScalarFieldContainer[str]
    history: History
    include_details: bool
    request_id: str
    fallback: Fallback
    model_version: str
    def __init__(self, user_id: _Optional[str] = ..., item_ids: _Optional[_Iterable[str]] = ..., history: _Optional[_Union[History, _Mapping]] = ..., include_details: _Optional[bool] = ..., request_id: _Optional[str] = ..., fallback: _Optional[_Union[Fallback, str]] = ..., model_version: _Optional[str] = ...) -> None: ...

class ScoreResponse(_message.Message):
    __slots__ = ("request_id", "probabilities", "details", "cold_start", "cold_start_reason", "model")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    PROBABILITIES_FIELD_NUMBER: _ClassVar[int]
    DETAILS_FIELD_NUMBER: _ClassVar[int]
    COLD_START_FIELD_NUMBER: _ClassVar[int]
    COLD_START_REASON_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    probabilities: _containers.RepeatedScalarFieldContainer[float]
    details: ItemDetails
    cold_start: bool
    cold_start_reason: ColdStartReason
    model: ModelVersion
    def __init__(self, request_id: _Optional[str] = ..., probabilities: _Optional[_Iterable[float]] = ..., details: _Optional[_Union[ItemDetails, _Mapping]] = ..., cold_start: _Optional[bool] = ..., cold_start_reason: _Optional[_Union[ColdStartReason, str]] = ..., model: _Optional[_Union[ModelVersion, _Mapping]] = ...) -> None: ...

class ScoreStreamRequest(_message.Message):
    __slots__ = ("request",)
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    request: ScoreRequest
    def __init__(self, request: _Optional[_Union[ScoreRequest, _Mapping]] = ...) -> None: ...

class ScoreStreamResponse(_message.Message):
    __slots__ = ("request_id", "status", "response")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    status: _status_pb2.Status
    response: ScoreResponse
    def __init__(self, request_id: _Optional[str] = ..., status: _Optional[_Union[_status_pb2.Status, _Mapping]] = ..., response: _Optional[_Union[ScoreResponse, _Mapping]] = ...) -> None: ...

class SimilarItemsRequest(_message.Message):
    __slots__ = ("item_ids", "k", "exclude_item_ids", "candidate_item_ids", "genres", "year_from", "year_to", "include_details", "request_id", "include_cold_items", "model_version")
    ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    K_FIELD_NUMBER: _ClassVar[int]
    EXCLUDE_ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    CANDIDATE_ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    GENRES_FIELD_NUMBER: _ClassVar[int]
    YEAR_FROM_FIELD_NUMBER: _ClassVar[int]
    YEAR_TO_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_DETAILS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_COLD_ITEMS_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    item_ids: _containers.RepeatedScalarFieldContainer[str]
    k: int
    exclude_item_ids: _containers.RepeatedScalarFieldContainer[str]
    candidate_item_ids: _containers.RepeatedScalarFieldContainer[str]
    genres: _containers.RepeatedScalarFieldContainer[str]
    year_from: int
    year_to: int
    include_details: bool
    request_id: str
    include_cold_items: bool
    model_version: str
    def __init__(self, item_ids: _Optional[_Iterable[str]] = ..., k: _Optional[int] = ..., exclude_item_ids: _Optional[_Iterable[str]] = ..., candidate_item_ids: _Optional[_Iterable[str]] = ..., genres: _Optional[_Iterable[str]] = ..., year_from: _Optional[int] = ..., year_to: _Optional[int] = ..., include_details: _Optional[bool] = ..., request_id: _Optional[str] = ..., include_cold_items: _Optional[bool] = ..., model_version: _Optional[str] = ...) -> None: ...

class SimilarItemsResponse(_message.Message):
    __slots__ = ("request_id", "item_ids", "similarities", "details", "unknown_item_ids", "model")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    SIMILARITIES_FIELD_NUMBER: _ClassVar[int]
    DETAILS_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    item_ids: _containers.RepeatedScalarFieldContainer[str]
    similarities: _containers.RepeatedScalarFieldContainer[float]
    details: ItemDetails
    unknown_item_ids: _containers.RepeatedScalarFieldContainer[str]
    model: ModelVersion
    def __init__(self, request_id: _Optional[str] = ..., item_ids: _Optional[_Iterable[str]] = ..., similarities: _Optional[_Iterable[float]] = ..., details: _Optional[_Union[ItemDetails, _Mapping]] = ..., unknown_item_ids: _Optional[_Iterable[str]] = ..., model: _Optional[_Union[ModelVersion, _Mapping]] = ...) -> None: ...

class GetModelRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetModelResponse(_message.Message):
    __slots__ = ("model", "dataset", "user_count", "item_count", "like_threshold", "created_at", "device", "metrics", "ranking", "registry", "slots")
    class MetricsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    MODEL_FIELD_NUMBER: _ClassVar[int]
    DATASET_FIELD_NUMBER: _ClassVar[int]
    USER_COUNT_FIELD_NUMBER: _ClassVar[int]
    ITEM_COUNT_FIELD_NUMBER: _ClassVar[int]
    LIKE_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    RANKING_FIELD_NUMBER: _ClassVar[int]
    REGISTRY_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    model: ModelVersion
    dataset: str
    user_count: int
    item_count: int
    like_threshold: float
    created_at: str
    device: str
    metrics: _containers.ScalarMap[str, float]
    ranking: RankingMethod
    registry: RegistryStatus
    slots: _containers.RepeatedCompositeFieldContainer[ModelStatus]
    def __init__(self, model: _Optional[_Union[ModelVersion, _Mapping]] = ..., dataset: _Optional[str] = ..., user_count: _Optional[int] = ..., item_count: _Optional[int] = ..., like_threshold: _Optional[float] = ..., created_at: _Optional[str] = ..., device: _Optional[str] = ..., metrics: _Optional[_Mapping[str, float]] = ..., ranking: _Optional[_Union[RankingMethod, _Mapping]] = ..., registry: _Optional[_Union[RegistryStatus, _Mapping]] = ..., slots: _Optional[_Iterable[_Union[ModelStatus, _Mapping]]] = ...) -> None: ...

class RankingMethod(_message.Message):
    __slots__ = ("precision", "precision_agreement", "approximate", "recall")
    PRECISION_FIELD_NUMBER: _ClassVar[int]
    PRECISION_AGREEMENT_FIELD_NUMBER: _ClassVar[int]
    APPROXIMATE_FIELD_NUMBER: _ClassVar[int]
    RECALL_FIELD_NUMBER: _ClassVar[int]
    precision: str
    precision_agreement: float
    approximate: bool
    recall: float
    def __init__(self, precision: _Optional[str] = ..., precision_agreement: _Optional[float] = ..., approximate: _Optional[bool] = ..., recall: _Optional[float] = ...) -> None: ...

class RegistryStatus(_message.Message):
    __slots__ = ("following", "reachable", "error", "seconds_since_answer", "from_cache", "reload_count", "refused_count", "failure_count")
    FOLLOWING_FIELD_NUMBER: _ClassVar[int]
    REACHABLE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    SECONDS_SINCE_ANSWER_FIELD_NUMBER: _ClassVar[int]
    FROM_CACHE_FIELD_NUMBER: _ClassVar[int]
    RELOAD_COUNT_FIELD_NUMBER: _ClassVar[int]
    REFUSED_COUNT_FIELD_NUMBER: _ClassVar[int]
    FAILURE_COUNT_FIELD_NUMBER: _ClassVar[int]
    following: bool
    reachable: bool
    error: str
    seconds_since_answer: float
    from_cache: bool
    reload_count: int
    refused_count: int
    failure_count: int
    def __init__(self, following: _Optional[bool] = ..., reachable: _Optional[bool] = ..., error: _Optional[str] = ..., seconds_since_answer: _Optional[float] = ..., from_cache: _Optional[bool] = ..., reload_count: _Optional[int] = ..., refused_count: _Optional[int] = ..., failure_count: _Optional[int] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ModelStatus(_message.Message):
    __slots__ = ("model", "state", "reason", "lease_count", "since", "share", "agreement")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    LEASE_COUNT_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    SHARE_FIELD_NUMBER: _ClassVar[int]
    AGREEMENT_FIELD_NUMBER: _ClassVar[int]
    model: ModelVersion
    state: ModelState
    reason: str
    lease_count: int
    since: str
    share: float
    agreement: ShadowAgreement
    def __init__(self, model: _Optional[_Union[ModelVersion, _Mapping]] = ..., state: _Optional[_Union[ModelState, str]] = ..., reason: _Optional[str] = ..., lease_count: _Optional[int] = ..., since: _Optional[str] = ..., share: _Optional[float] = ..., agreement: _Optional[_Union[ShadowAgreement, _Mapping]] = ...) -> None: ...

class ShadowAgreement(_message.Message):
    __slots__ = ("compared_version", "ranking_count", "mean_overlap", "same_first_share", "score_count", "mean_difference", "dropped_count", "failed_count")
    COMPARED_VERSION_FIELD_NUMBER: _ClassVar[int]
    RANKING_COUNT_FIELD_NUMBER: _ClassVar[int]
    MEAN_OVERLAP_FIELD_NUMBER: _ClassVar[int]
    SAME_FIRST_SHARE_FIELD_NUMBER: _ClassVar[int]
    SCORE_COUNT_FIELD_NUMBER: _ClassVar[int]
    MEAN_DIFFERENCE_FIELD_NUMBER: _ClassVar[int]
    DROPPED_COUNT_FIELD_NUMBER: _ClassVar[int]
    FAILED_COUNT_FIELD_NUMBER: _ClassVar[int]
    compared_version: str
    ranking_count: int
    mean_overlap: float
    same_first_share: float
    score_count: int
    mean_difference: float
    dropped_count: int
    failed_count: int
    def __init__(self, compared_version: _Optional[str] = ..., ranking_count: _Optional[int] = ..., mean_overlap: _Optional[float] = ..., same_first_share: _Optional[float] = ..., score_count: _Optional[int] = ..., mean_difference: _Optional[float] = ..., dropped_count: _Optional[int] = ..., failed_count: _Optional[int] = ...) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[ModelStatus]
    def __init__(self, models: _Optional[_Iterable[_Union[ModelStatus, _Mapping]]] = ...) -> None: ...
