"""Tools and formats of answers in the OpenAI-compatible API. Only the fields named here reach a provider."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Name = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
Description = Annotated[str, Field(max_length=32_000)]
MOST_TOOLS = 128


class Function(BaseModel):
    name: Name
    description: Description | None = None
    parameters: dict[str, Any] | None = Field(None, description="a JSON schema of type `object`")
    strict: bool | None = None

    @field_validator("parameters")
    @classmethod
    def of_an_object(cls, schema: dict[str, Any] | None) -> dict[str, Any] | None:
        if schema and schema.get("type", "object") != "object":
            raise ValueError('must be a JSON schema of type "object"')
        return schema


class Tool(BaseModel):
    type: Literal["function"]
    function: Function


class FunctionName(BaseModel):
    name: Name


class NamedFunction(BaseModel):
    type: Literal["function"]
    function: FunctionName


ToolChoice = Literal["none", "auto", "required"] | NamedFunction


class CalledFunction(BaseModel):
    name: Name
    arguments: str


class ToolCall(BaseModel):
    id: str = Field(min_length=1, max_length=256)
    type: Literal["function"]
    function: CalledFunction


class JsonSchema(BaseModel):
    model_config = ConfigDict(serialize_by_alias=True)

    name: Name
    description: Description | None = None
    definition: dict[str, Any] | None = Field(None, alias="schema")
    strict: bool | None = None


class ResponseFormat(BaseModel):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    @model_validator(mode="after")
    def with_its_schema(self) -> "ResponseFormat":
        if self.type == "json_schema" and self.json_schema is None:
            raise ValueError("json_schema is missing")
        if self.type != "json_schema":
            self.json_schema = None
        return self
