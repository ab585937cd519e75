"""Requests and answers, typed: what ``/openapi.json`` tells to programs."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from freestyle.search.query import MAX_PARTS

MAX_CONDITIONS = 64  # and parts: whatever the limits, so that complaints about each stay few
Number = Annotated[float, Field(allow_inf_nan=False)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class PartRequest(_Strict):
    """One part of a query: exactly one of text, image, file, photo."""

    text: str | None = Field(None, description="Words that the photo fits.")
    image: str | None = Field(
        None, description="A picture, base64 or a data: URL: JPEG, PNG, WebP, GIF or BMP."
    )
    file: str | None = Field(
        None, max_length=100, description="A picture: name of a file field of the multipart form."
    )
    photo: str | None = Field(
        None, pattern="^[0-9a-f]{20}$", description="A photo of the index, by its id."
    )
    weight: Number = Field(1.0, ge=0, description="How much the part counts.")
    exclude: bool = Field(False, description="Whether photos that fit it shall rank lower.")
    name: str = Field("", max_length=100, description="How the answer shall call the part.")


class SearchRequest(_Strict):
    """A query: parts that are searched for together."""

    parts: list[PartRequest] = Field(min_length=1, max_length=MAX_PARTS)
    top: int = Field(20, ge=1, description="Photos wanted.")
    where: list[str] = Field(
        default_factory=list,
        max_length=MAX_CONDITIONS,
        description='Conditions that all must hold: "date >= 2024-01-01".',
    )
    rerank: int | None = Field(
        None, ge=0, description="Candidates that are scored by their sets; 0 for none."
    )


class HitAnswer(BaseModel):
    """A photo that was found."""

    id: str = Field(description="For /image/{id}, /thumbnail/{id} and further queries.")
    score: float
    parts: list[float] = Field(
        description="By part: how much better than usual photos of the index it fits, in standard "
        "deviations."
    )
    reason: str = Field("", description="Name of the part that matched most.")
    metadata: dict[str, Any] = Field(description="What the index knows of it.")


class PartAnswer(BaseModel):
    """How a part of the query was read."""

    kind: Literal["image", "text", "photo"]
    name: str
    styles: dict[str, float] = Field(
        description="Probability of each trained style and of others; empty for texts."
    )
    place: list[float] | None = Field(None, description="Its weights over the style space's bases.")


class SearchAnswer(BaseModel):
    """The photos, best first."""

    hits: list[HitAnswer]
    parts: list[PartAnswer]
    milliseconds: dict[str, float] = Field(description="embed, nearest, rerank, total.")
    photos: int = Field(description="Photos in the index.")


class ErrorAnswer(BaseModel):
    """What is wrong, in one sentence."""

    error: str


class HealthAnswer(BaseModel):
    """Whether searches are answered."""

    status: Literal["ok", "closing", "failing"]
    photos: int


class InfoAnswer(BaseModel):
    """What is served."""

    photos: int
    encoder: str
    weights: str
    model: str
    styles: list[str] = Field(description="That the model tells apart.")
    columns: dict[str, str] = Field(description="Names and types that conditions may use.")
    limits: dict[str, float]
    token: bool = Field(description="Whether requests need a bearer token.")


ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorAnswer, "description": "Malformed request"},
    401: {"model": ErrorAnswer, "description": "Bearer token missing or wrong"},
    404: {"model": ErrorAnswer, "description": "No such photo"},
    408: {"model": ErrorAnswer, "description": "The body did not arrive in time"},
    413: {"model": ErrorAnswer, "description": "Body, picture or number of parts too large"},
    415: {"model": ErrorAnswer, "description": "Neither JSON nor a form, or no allowed picture"},
    422: {"model": ErrorAnswer, "description": "A value outside its range, or a damaged picture"},
    429: {"model": ErrorAnswer, "description": "Too many searches from this address"},
    503: {"model": ErrorAnswer, "description": "Too many searches at once, or it took too long"},
}


def body_schema() -> dict[str, Any]:
    """The request body of a search, in both of its forms, for OpenAPI."""
    request = SearchRequest.model_json_schema(ref_template="#/components/schemas/{model}")
    request.pop("$defs", None)
    form = {
        "type": "object",
        "required": ["request"],
        "properties": {"request": {**request, "description": "The JSON of the query."}},
        "additionalProperties": {"type": "string", "format": "binary"},
    }
    return {
        "required": True,
        "content": {
            "application/json": {"schema": {"$ref": "#/components/schemas/SearchRequest"}},
            "multipart/form-data": {"schema": form},
        },
    }


def component_schemas() -> dict[str, Any]:
    """The models of the request body, for OpenAPI's components."""
    schema = SearchRequest.model_json_schema(ref_template="#/components/schemas/{model}")
    parts = schema.pop("$defs", {})
    return {"SearchRequest": schema, **parts}
