"""The child's side of `process`: reads one job from standard input, writes events as JSON lines.

Events: ``{"progress": 0…1, "text": …}`` any number of times, then ``{"value": …}`` or ``{"error": …}`` once. Whatever
vendors print goes to standard error, which the parent keeps in a log file.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from .codec import from_json, to_json
from .contracts import Expectations, Exported, ExportOptions, Progress, Quantized, Recipe, Reference, Source
from .errors import KobakoError, UnsupportedModel
from .isolation import deny_network
from .place import FULL
from .system import peak_rss_bytes

Arguments = Mapping[str, Any]


def _load(arguments: Arguments, progress: Progress) -> object:
    from .reference.load import load

    return load(from_json(arguments["source"], Source), Path(arguments["out"]), progress, arguments["task"])


def _quantize(arguments: Arguments, progress: Progress) -> object:
    from .quantize import quantize

    reference = from_json(arguments["reference"], Reference)
    recipe, out = from_json(arguments["recipe"], Recipe), Path(arguments["out"])
    return quantize(reference, recipe, out, progress, _calibration(arguments))


def _calibration(arguments: Arguments) -> Path | None:
    return Path(arguments["calibration"]) if arguments["calibration"] else None


def _sensitivity(arguments: Arguments, progress: Progress) -> object:
    from .sensitivity import sensitivity

    reference = from_json(arguments["reference"], Reference)
    return sensitivity(reference, from_json(arguments["narrow"], Quantized), progress, _calibration(arguments))


def _original(arguments: Arguments, progress: Progress) -> object:
    from .reading import ask_original

    ask_original(from_json(arguments["reference"], Reference), arguments["context"], Path(arguments["out"]), progress)
    return None


def _expect(arguments: Arguments, progress: Progress) -> object:
    from . import families

    quantized = from_json(arguments["quantized"], Quantized)
    options = from_json(arguments["options"], ExportOptions)
    activations, out = tuple(arguments["activations"]), Path(arguments["out"])
    kind = families.get(quantized.model_type).kind
    if kind == "decoder":
        from .expect import expect as expect_decoder

        return expect_decoder(Path(arguments["original"]), quantized, activations, options, out, progress)
    if kind == "encoder":
        from .encoder.expect import expect
    else:
        from .seq2seq.expect import expect
    return expect(from_json(arguments["reference"], Reference), quantized, activations, options, out, progress)


def _export(arguments: Arguments, progress: Progress) -> object:
    from kobako import targets

    target = targets.get(arguments["target"])
    quantized = from_json(arguments["quantized"], Quantized)
    options = from_json(arguments["options"], ExportOptions)
    with unknown_architecture(quantized.model_type):
        return target.export(quantized, options, Path(arguments["out"]), progress)


@contextmanager
def unknown_architecture(model_type: str) -> Iterator[None]:
    """An architecture without a family file is only tried: whatever then goes wrong says that it is not supported."""
    from . import families

    try:
        yield
    except KobakoError:
        raise
    except Exception as error:
        if model_type in families.names():
            raise
        traceback.print_exc()
        raise UnsupportedModel(
            f"architecture {model_type!r} has no family file and is not built as llama is "
            f"({type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else 'no message'}).",
            "CONTRIBUTING.md tells how to add a family.",
        ) from error


def _validate(arguments: Arguments, progress: Progress) -> object:
    from kobako import targets

    from . import standard

    exported = from_json(arguments["exported"], Exported)
    recipe = from_json(arguments["recipe"], Recipe)
    if exported.kind == "encoder":
        return _validate_encoder(exported, recipe, arguments, progress)
    if arguments["golden"]:
        held_against = standard.from_golden(Path(arguments["golden"]), recipe, exported.activations, exported.kv_cache)
    else:
        expectations = from_json(arguments["expectations"], Expectations)
        held_against = standard.from_expectations(expectations, recipe, exported.activations)
    if exported.kind == "seq2seq":
        from .seq2seq.proof import validate
    else:
        from .validate import validate
    return validate(targets.get(arguments["target"]), exported, held_against, progress)


def _validate_encoder(exported: Exported, recipe: Recipe, arguments: Arguments, progress: Progress) -> object:
    from kobako import targets

    from .encoder.proof import validate
    from .encoder.standard import read_standard

    golden = arguments["golden"] or from_json(arguments["expectations"], Expectations).directory
    standard = read_standard(Path(golden), recipe, exported.activations)
    return validate(targets.get(arguments["target"]), exported, standard, progress)


def _measure(arguments: Arguments, progress: Progress) -> object:
    from kobako import targets

    target = targets.get(arguments["target"])
    exported = from_json(arguments["exported"], Exported)
    if exported.kind == "encoder":
        from .encoder.measure import measure as measure_reading

        return measure_reading(target, exported, progress)
    from .measure import measure

    return measure(target, exported, int(arguments["weight_bytes"]), progress)


def _generate(arguments: Arguments, progress: Progress) -> object:
    from kobako import targets

    from .generate import Until
    from .seq2seq.engine import engine_of

    engine = engine_of(targets.get(arguments["target"]), from_json(arguments["exported"], Exported))
    told = Until(arguments["stop"], lambda piece: progress(0.0, piece))
    try:
        said = engine.generate(arguments["prompt"], arguments["max_new_tokens"], told)
        return replace(said, text=told.finish())
    finally:
        engine.close()


def _read(arguments: Arguments, progress: Progress) -> object:
    from contextlib import closing

    from kobako import targets

    from .encoder.engine import TextEncoder
    from .heads import Head

    exported, head = from_json(arguments["exported"], Exported), from_json(arguments["head"], Head)
    with closing(TextEncoder.of(targets.get(arguments["target"]).encoder(exported), exported)) as engine:
        return [engine.read(text, head) for text in arguments["texts"]]


def _inspect(arguments: Arguments, progress: Progress) -> object:
    from kobako import targets

    return targets.get(arguments["target"]).inspect(Path(arguments["path"]))


OPERATIONS: Mapping[str, Callable[[Arguments, Progress], object]] = {
    "load": _load,
    "quantize": _quantize,
    "sensitivity": _sensitivity,
    "original": _original,
    "expect": _expect,
    "export": _export,
    "validate": _validate,
    "measure": _measure,
    "generate": _generate,
    "read": _read,
    "inspect": _inspect,
}


def follow_parent_into_death(parent: int) -> None:
    """Exit when the parent has gone: a killed build must not leave its workers behind."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


def main() -> None:
    """Run the job given on standard input, without network where the kernel allows: no operation needs any."""
    deny_network()  # first: user namespaces are for processes of one thread
    threading.Thread(target=follow_parent_into_death, args=(os.getppid(),), daemon=True).start()
    events = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)  # what vendors print to standard output must not mix with events

    def send(event: Mapping[str, object]) -> None:
        events.write(json.dumps(event) + "\n")

    def progress(fraction: float, text: str) -> None:
        send({"progress": fraction, "text": text})

    job = json.loads(sys.stdin.read())
    try:
        value = to_json(OPERATIONS[job["operation"]](job["arguments"], progress))
        send({"value": value, "peak_rss_bytes": peak_rss_bytes()})
    except KobakoError as error:
        send({"error": {"kind": type(error).__name__, "what": error.what, "next_step": error.next_step}})
    except Exception as error:
        traceback.print_exc()
        if isinstance(error, OSError) and error.errno in FULL:
            send(
                {"error": {"kind": "NotEnoughDisk", "what": str(error), "next_step": "Free some space and run again."}}
            )
        else:
            send({"error": {"kind": "unexpected", "what": f"{type(error).__name__}: {error}", "next_step": ""}})
    events.flush()
    sys.stderr.flush()
    os._exit(0)  # vendors' atexit handlers have crashed after the work was done


if __name__ == "__main__":
    main()
