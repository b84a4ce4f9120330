"""The .litertlm container: writing it around a model.tflite, reading its header and sections.

Layout (from the builder's own constants): magic, three version words, the header's end at byte 24, a flatbuffer
header from byte 32, then sections at the offsets it names.
"""

from __future__ import annotations

import hashlib
import struct
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kobako.pipeline.errors import BadArtifact

MAGIC = b"LITERTLM"
HEADER_END_AT = 24
HEADER_AT = 32
MAX_HEADER_BYTES = 1 << 20
MODEL_SECTION = "TFLiteModel"
METADATA_SECTION = "LlmMetadataProto"
NO_TIME = "1970-01-01T00:00:00+00:00"


@dataclass(frozen=True, kw_only=True)
class LanguageModel:
    """What the engine must know beside the graph.

    Attributes:
        context_tokens: slots of the cache.
        stop_ids: token ids that end an answer; their texts are stops too.
        stop_texts: of the same tokens.
        start_text: the token that the tokenizer puts before every text, or None.
        model_type: a name of the LlmModelType message.
        chat_template: safe for minijinja, or empty.
    """

    context_tokens: int
    stop_ids: tuple[int, ...]
    stop_texts: tuple[str, ...]
    start_text: str | None
    model_type: str
    chat_template: str


@dataclass(frozen=True, kw_only=True)
class Section:
    """One section of a container: its kind, its attributes, and where it lies."""

    kind: str
    attributes: Mapping[str, Any]
    begin: int
    end: int


def metadata_bytes(language_model: LanguageModel) -> bytes:
    """The LlmMetadata message, serialized."""
    from litert_lm_builder.runtime.proto import llm_metadata_pb2

    message = llm_metadata_pb2.LlmMetadata()
    message.max_num_tokens = language_model.context_tokens
    for token_id in language_model.stop_ids:
        message.stop_tokens.add().token_ids.ids.append(token_id)
    for text in language_model.stop_texts:
        message.stop_tokens.add().token_str = text
    if language_model.start_text:
        message.start_token.token_str = language_model.start_text
    getattr(message.llm_model_type, language_model.model_type).SetInParent()
    message.jinja_prompt_template = language_model.chat_template
    return bytes(message.SerializeToString())


def write_container(path: Path, model: Path, tokenizer: Path, language_model: LanguageModel) -> None:
    """Write `path`: metadata, the Hugging Face tokenizer and the model's bytes as they are."""
    from litert_lm_builder import litertlm_builder

    types = litertlm_builder.TfLiteModelType
    with tempfile.TemporaryDirectory() as scratch:
        metadata = Path(scratch) / "metadata.pb"
        metadata.write_bytes(metadata_bytes(language_model))
        builder = litertlm_builder.LitertLmFileBuilder()
        builder.add_system_metadata(
            litertlm_builder.Metadata(key="author", value="kobako", dtype=litertlm_builder.DType.STRING)
        )
        builder.add_llm_metadata(str(metadata))
        builder.add_hf_tokenizer(str(tokenizer))
        builder.add_tflite_model(str(model), types.PREFILL_DECODE)
        with path.open("wb") as file, _named_by_content(model, tokenizer, metadata):
            builder.build(file)


@contextmanager
def _named_by_content(*parts: Path) -> Iterator[None]:
    """The builder puts a random UUID and the time into every file; for its duration, what the parts' bytes decide.

    The same inputs must give the same bytes: a package's digests, what is cached and what is uploaded depend on it.
    """
    from litert_lm_builder import litertlm_builder

    whole = hashlib.sha256()
    for part in parts:
        with part.open("rb") as stream:
            whole.update(hashlib.file_digest(stream, "sha256").digest())
    fields = {"uuid": str(uuid.UUID(bytes=whole.digest()[:16], version=5)), "creation_timestamp": NO_TIME}
    original = litertlm_builder.populate_system_metadata

    def populate(given: list[Any]) -> list[Any]:
        text = litertlm_builder.DType.STRING
        kept = [entry for entry in given if entry.key not in fields]
        return kept + [litertlm_builder.Metadata(key=key, value=value, dtype=text) for key, value in fields.items()]

    litertlm_builder.populate_system_metadata = populate
    try:
        yield
    finally:
        litertlm_builder.populate_system_metadata = original


def sections(path: Path) -> tuple[Section, ...]:
    """The sections of a container, checked to lie inside the file. Raises BadArtifact."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(HEADER_AT)
        if len(head) < HEADER_AT or not head.startswith(MAGIC):
            raise BadArtifact(f"{path.name} is not a .litertlm file: it begins with {head[:8]!r}.")
        (end,) = struct.unpack_from("<Q", head, HEADER_END_AT)
        if not HEADER_AT < end <= min(size, MAX_HEADER_BYTES):
            raise BadArtifact(f"{path.name} is damaged: its header ends at byte {end} of {size}.", "Build it again.")
        header = file.read(end - HEADER_AT)
    try:
        found = tuple(_read_sections(header))
    except (struct.error, IndexError, ValueError, TypeError, AttributeError) as error:
        raise BadArtifact(f"{path.name} is damaged: its header cannot be read ({error}).", "Build it again.") from error
    for section in found:
        if not end <= section.begin <= section.end <= size:
            raise BadArtifact(
                f"{path.name} is damaged: section {section.kind} lies at {section.begin}–{section.end} of {size}.",
                "Build it again.",
            )
    return found


def _read_sections(header: bytes) -> Iterable[Section]:
    from litert_lm_builder import litertlm_header_schema_py_generated as schema
    from litert_lm_builder import litertlm_peek

    kinds = {number: name for name, number in vars(schema.AnySectionDataType).items() if isinstance(number, int)}
    listed = schema.LiteRTLMMetaData.GetRootAs(header, 0).SectionMetadata()
    for index in range(listed.ObjectsLength()):
        entry = listed.Objects(index)
        items = [litertlm_peek.kvp_to_dict(entry.Items(i)) for i in range(entry.ItemsLength())]
        attributes = {str(item["key"]): item["value"] for item in items}
        kind = kinds.get(entry.DataType(), str(entry.DataType()))
        yield Section(kind=kind, attributes=attributes, begin=entry.BeginOffset(), end=entry.EndOffset())


def section_bytes(path: Path, section: Section) -> bytes:
    """The bytes of one section."""
    with path.open("rb") as file:
        file.seek(section.begin)
        return file.read(section.end - section.begin)


def model_section(path: Path) -> Section:
    """The section that holds the model. Raises BadArtifact when there is not exactly one."""
    found = [section for section in sections(path) if section.kind == MODEL_SECTION]
    if len(found) != 1:
        raise BadArtifact(f"{path.name} holds {len(found)} models, not one.")
    return found[0]


def read_metadata(path: Path) -> Mapping[str, Any]:
    """The LlmMetadata of a container as JSON values. Raises BadArtifact."""
    from google.protobuf import json_format
    from google.protobuf.message import DecodeError
    from litert_lm_builder.runtime.proto import llm_metadata_pb2

    found = [section for section in sections(path) if section.kind == METADATA_SECTION]
    if len(found) != 1:
        raise BadArtifact(f"{path.name} holds {len(found)} metadata sections, not one.")
    message = llm_metadata_pb2.LlmMetadata()
    try:
        message.ParseFromString(section_bytes(path, found[0]))
    except DecodeError as error:
        raise BadArtifact(
            f"{path.name} is damaged: its metadata cannot be read ({error}).", "Build it again."
        ) from error
    return json_format.MessageToDict(message, preserving_proto_field_name=True)
