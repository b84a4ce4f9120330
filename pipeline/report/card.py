"""The package's README.md: a Hugging Face model card with the proof in it.

The front matter's values are written as JSON, which is YAML too, so that no name can break out of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from ..leftout import text_only
from . import encoder, words
from .facts import (
    TargetFacts,
    adapter_words,
    cache_words,
    headline,
    licence_words,
    origin_words,
    recipe_words,
    targets_of,
)
from .markdown import block, code, markdown_table, proof_table, text
from .page import unverified
from .rows import is_seq2seq
from .snippets import run_snippet

# identifiers the Hub knows (huggingface.co/docs/hub/repositories-licenses); anything else must be "other" with a name
HUB_LICENCES = {
    "apache-2.0", "mit", "openrail", "bigscience-openrail-m", "creativeml-openrail-m", "bigscience-bloom-rail-1.0",
    "bigcode-openrail-m", "afl-3.0", "artistic-2.0", "bsl-1.0", "bsd", "bsd-2-clause", "bsd-3-clause", "cc", "cc0-1.0",
    "cc-by-2.0", "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc-by-nc-2.0", "cc-by-nc-3.0",
    "cc-by-nc-4.0", "cc-by-nd-4.0", "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0",
    "agpl-3.0", "gpl", "gpl-2.0", "gpl-3.0", "lgpl", "lgpl-2.1", "lgpl-3.0", "isc", "mpl-2.0", "ms-pl", "unlicense",
    "wtfpl", "zlib", "gemma", "llama2", "llama3", "llama3.1", "llama3.2", "llama3.3", "llama4", "apple-amlr",
}  # fmt: skip
PIPELINES = {
    "summarize": "summarization",
    "translate": "translation",
    "embed": "feature-extraction",
    "classify": "text-classification",
    "fill-mask": "fill-mask",
    "answer": "question-answering",
    "tag": "token-classification",
}


def card(data: Mapping[str, Any]) -> str:
    """The whole README.md."""
    clean: Mapping[str, Any] = words.cleaned(data)
    targets = targets_of(clean)
    sections = [
        _front_matter(clean),
        f"# {text(clean['name'])} · {text(clean['recipe']['name'])}",
        f"**{text(headline(clean))}** {text(_what(clean))}",
        _warning(targets),
        f"## What is inside\n\n{_inside(clean, targets)}",
        f"## The proof\n\n{_proof(clean, targets)}",
        f"## How to run it\n\n{_run(clean, targets)}",
        f"## Source and licence\n\n{_source(clean)}",
        "## What was not verified\n\n" + "\n".join(f"- {text(note)}" for note in unverified(targets)),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _front_matter(data: Mapping[str, Any]) -> str:
    origin, tasks = str(data["source"]["origin"]), list(data["tasks"])
    fields: dict[str, Any] = _licence(licence_words(data))
    if origin.startswith("hf://"):
        fields |= {"base_model": origin.removeprefix("hf://"), "base_model_relation": "quantized"}
    tags = ["kobako", *data["targets"], data["recipe"]["name"], "on-device", "quantized"]
    pipeline = PIPELINES.get(tasks[0], "text-generation") if len(tasks) == 1 else "text-generation"
    fields |= {"tags": tags, "pipeline_tag": pipeline, "library_name": "kobako"}
    lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in fields.items()]
    return "\n".join(["---", *lines, "---"])


def _licence(licence: str) -> dict[str, Any]:
    if licence.lower() in HUB_LICENCES:
        return {"license": licence.lower()}
    return {"license": "other", "license_name": re.sub(r"[^a-z0-9.]+", "-", licence.lower()).strip("-") or "unknown"}


def _what(data: Mapping[str, Any]) -> str:
    return (
        f"A package for phones of {data['source']['name']}: {recipe_words(data)}, the same integers in every format, "
        f"for a context of {data['context_tokens']} tokens{cache_words(data)}. "
        f"Tasks: {words.listed(list(data['tasks'])) or 'none'}."
        + (f" {encoder.head_words(data)}" if encoder.is_encoder(data) else "")
        + (f" {text_only(data['left_out'])}" if data["left_out"] else "")
    )


def _warning(targets: list[TargetFacts]) -> str:
    lines = [f"> ❌ **{text(t.title)} does not pass its proof.** {text(t.verdict)}" for t in targets if not t.passed]
    return "\n>\n".join(lines)


def _inside(data: Mapping[str, Any], targets: list[TargetFacts]) -> str:
    rows = [[code(f"{t.name}/"), f"{text(t.title)}: {_files(t)}", words.human_bytes(t.size_bytes)] for t in targets]
    rows += [
        [code("tokenizer/"), "tokenizer" if encoder.is_encoder(data) else "tokenizer and chat template", ""],
        [code("golden/"), f"{_golden(data)}, with which a device can check itself", ""],
        [code("kobako.json"), "the manifest: files with digests, stop tokens, tasks, device needs", ""],
        [code("report.html"), "the proof as a page, with plots; its figures are in `report.json`", ""],
    ]
    weights = sum(data["weights_bytes_by_part"].values())
    note = f"Each format's folder is complete in itself. The weights alone take {words.human_bytes(weights)}."
    return markdown_table(["Path", "What", "Size"], rows) + "\n\n" + note


def _golden(data: Mapping[str, Any]) -> str:
    return "texts, ids and answers" if encoder.is_encoder(data) else "prompts, ids and logits"


def _files(target: TargetFacts) -> str:
    """The files at the top of a target's folder; a .mlpackage counts as one."""
    return ", ".join(code(name) for name in dict.fromkeys(path.split("/")[0] for path in target.entry["files"]))


def _proof(data: Mapping[str, Any], targets: list[TargetFacts]) -> str:
    notes = [f"- {text(target.title)}: {text(note)}" for target in targets for note in target.caveats]
    explained = ENCODERS_EXPLAINED if encoder.is_encoder(data) else EXPLAINED
    return "\n\n".join(part for part in (proof_table(data), explained, "\n".join(notes)) if part)


EXPLAINED = (
    "Fidelity compares a file in its runtime with the quantized model in PyTorch, quality compares the quantized "
    "model with the original. KL is the mean divergence in nats (0 is identical), *same token* the share of places "
    "where the most likely token is the same. Speeds are of the machine that built the package."
)
ENCODERS_EXPLAINED = (
    "Fidelity compares a file in its runtime with the quantized model in PyTorch, quality compares the quantized "
    "model with the original: the mean cosine of vectors (1 is the same direction), or the mean divergence of labels "
    "in nats (0 is identical), over short and long texts. Speeds are of the machine that built the package."
)


def _run(data: Mapping[str, Any], targets: list[TargetFacts]) -> str:
    task = (list(data["tasks"]) or ["chat"])[0]
    lines = [
        f'kobako run . --task {task} "…"  # in the real runtime, on this machine',
        "kobako validate .  # the proof again",
    ]
    parts = ["With kobako, in this folder:\n\n" + block("\n".join(lines), "sh")]
    if encoder.is_encoder(data):
        endings = {"executorch": ".pte", "coreml": ".mlpackage", "litert": ".tflite"}
        places = [(t, _find(t, endings.get(t.name, ""), "model")) for t in targets]
        return "\n\n".join([*parts, *(run_snippet(data, t.name, t.title, place) for t, place in places)])
    if is_seq2seq(data):
        return "\n\n".join([*parts, SEQ2SEQ_RUN])
    writers = {"executorch": _run_executorch, "coreml": _run_coreml, "litert": _run_litert}
    parts += [writers[target.name](target) for target in targets if target.name in writers]
    return "\n\n".join(parts)


SEQ2SEQ_RUN = (
    "An app runs the file's `encode` once for a source, and then `decode` for each token of the answer: what the first "
    "gives goes into the second, and each call's caches into the next. `kobako inspect` lists both functions' inputs; "
    "`begin_ids` and `stop_ids` of `kobako.json` tell what an answer begins and ends with."
)


def _find(target: TargetFacts, ending: str, otherwise: str) -> str:
    """The path, inside the package, of a target's first file or folder with this ending."""
    tops = dict.fromkeys(path.split("/")[0] for path in target.entry["files"])
    return f"{target.name}/{next((name for name in tops if name.endswith(ending)), otherwise)}"


def _run_executorch(target: TargetFacts) -> str:
    model = json.dumps(_find(target, ".pte", "model.pte"))
    own = "tokenizer.json" in target.entry["files"]
    tokenizer = json.dumps(f"{target.name}/tokenizer.json" if own else "tokenizer/tokenizer.json")
    lines = [
        "from executorch.extension.llm.runner import GenerationConfig, TextLLMRunner",
        "",
        f"runner = TextLLMRunner({model}, {tokenizer})",
        "config = GenerationConfig(max_new_tokens=128, temperature=0.0, echo=False)",
        'runner.generate(prompt, config, token_callback=lambda piece: print(piece, end=""))',
        "# `prompt` is the text with the chat template already around it",
    ]
    after = "In a React Native app, give the same two files to react-native-executorch."
    return (
        f"With {text(target.title)}, in Python (its C++ runner):\n\n{block(chr(10).join(lines), 'python')}\n\n{after}"
    )


def _run_coreml(target: TargetFacts) -> str:
    lines = [
        "let compiled = try await MLModel.compileModel(at: package)  // "
        + _find(target, ".mlpackage", "model.mlpackage"),
        "let options = MLModelConfiguration()",
        'options.functionName = "decode"  // "prefill" reads many tokens at once',
        "let model = try await MLModel.load(contentsOf: compiled, configuration: options)",
        "let state = model.makeState()  // the KV cache",
        "let answer = try await model.prediction(from: inputs, using: state)",
    ]
    after = "The inputs are listed by `kobako inspect`."
    if target.interpreted:
        after += " This was not run on Apple's systems; see below."
    intro = f"With {text(target.title)}, in Swift (iOS 18, macOS 15 or later):"
    return f"{intro}\n\n{block(chr(10).join(lines), 'swift')}\n\n{after}"


def _run_litert(target: TargetFacts) -> str:
    model = json.dumps(_find(target, ".litertlm", "model.litertlm"))
    lines = [
        "import litert_lm",
        "",
        f"with litert_lm.Engine({model}) as engine, engine.create_conversation() as conversation:",
        '    for piece in conversation.send_message_async("…"):',
        '        print(piece.contents, end="")',
    ]
    return f"With LiteRT-LM, in Python (`pip install litert-lm-api`):\n\n{block(chr(10).join(lines), 'python')}"


def _source(data: Mapping[str, Any]) -> str:
    source = data["source"]
    files = [
        f"{code(file['path'])} {words.human_bytes(file['size_bytes'])}, sha256 {code(file['sha256'])}"
        for file in source["files"]
    ]
    rows = [
        ["Origin", code(origin_words(data))],
        ["Revision", code(str(source["revision"]))],
        ["Licence", text(licence_words(data))],
        *([["Adapter", code(adapter_words(data))]] if source.get("adapter") else []),
        ["Architecture", code(str(data["model_type"]))],
        *[["File", file] for file in files],
    ]  # fmt: skip
    note = (
        "The weights were quantized and converted, not trained. "
        + (
            "The licences of the model and of the adapter hold"
            if source.get("adapter")
            else "The model's licence holds"
        )
        + " for this package; the text lies beside this file when the source carried one."
    )
    return markdown_table(["", ""], rows) + "\n\n" + note
