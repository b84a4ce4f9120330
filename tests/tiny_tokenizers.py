"""Four tiny tokenizers of the kinds that models use, under fixtures/, and texts that are hard for them.

``python -m tests.tiny_tokenizers`` writes what the tokenizers library makes of the texts; with ``--train`` it makes the
tokenizers first. The app's tokenizer is held against the result (mobile_demo/tests/tokenizers.test.ts).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from kobako.pipeline.generate import TextStream
from kobako.pipeline.tokens import ShippedTokenizer

HOME = Path(__file__).parent / "fixtures" / "tokenizers"
GOLDEN = "golden.json"
PROOF = Path(__file__).parent.parent / "pipeline" / "texts" / "calibration.txt"
SPECIAL = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]
VOCABULARY = 700

TEXTS = (
    "Hello, world!",
    "  two  spaces,\ttabs\n\nand lines \r\n end ",
    "I'm you're WE'VE he'll it's don't 'quoted'",
    "1234567890 3.14 1,000,000 \uff11\uff12\uff13 x\u00b2 \u00bd",
    "Où est l'hôtel ? Ça coûte 5 €, n'est-ce pas…",
    "e\u0301 \u00e9 A\u030a \u00c5 \u1ec7 e\u0323\u0302",
    "Straße GROSSE İstanbul ıI ŁÓDŹ ǆ",
    "日本語のテキスト、カタカナとｶﾀｶﾅ。駅はどこですか？",
    "中文字符 繁體字 𠮷野家",
    "안녕하세요 한글",
    "Привет, мир! Ёлка",
    "السلام عليكم \u200f(مرحبا)\u200e",
    "नमस्ते दुनिया क्षत्रिय",
    "สวัสดีชาวโลก",
    "👩‍👩‍👧 🇫🇷 👍🏽 ☃\ufe0f 🧑🏿‍🚀",
    "zero\u200bwidth soft\u00adhyphen no\u00a0break \u2028line",
    "\ufeffbom \ufeff",
    "control \u0001 \u007f \ue000 \U0010ffff",
    "ﬁ ligature Ⅳ ㎏ ™",
    "<|im_start|>user\nHi<|im_end|>\n </s> <0x0A> ▁▁",
    "def f(x):\n    return x**2  # ≤ 3\n",
    "a",
    " ",
    "",
    "𝕳𝖊𝖑𝖑𝖔 \U0001f9ff\U0001f9ff",
)


def names() -> list[str]:
    """The tokenizers' names, which are those of their directories."""
    return sorted(path.name for path in HOME.iterdir() if path.is_dir())


def shipped(name: str) -> ShippedTokenizer:
    """One of the tokenizers, as kobako reads it from a package."""
    return ShippedTokenizer(HOME / name)


def said(tokenizer: ShippedTokenizer, text: str) -> dict[str, Any]:
    """Ids of a text alone and as a prompt, the text they decode to, the pieces in which that streams, and what is left
    of it without the last id, which often ends inside a character.
    """
    ids = tokenizer.encode(text)
    stream = TextStream(tokenizer.decode)
    pieces = [stream.push(token) for token in ids]
    return {
        "text": text,
        "ids": ids,
        "prompt_ids": tokenizer.encode_prompt(text),
        "decoded": tokenizer.decode(ids),
        "pieces": [*pieces, stream.finish()],
        "cut": _one_mark("".join([*pieces[:-1], *_rest(tokenizer, ids[:-1])])),
    }


def _rest(tokenizer: ShippedTokenizer, ids: list[int]) -> list[str]:
    """What a stream that stops after `ids` gives out at its end."""
    stream = TextStream(tokenizer.decode)
    for token in ids:
        stream.push(token)
    return [stream.finish()]


def _one_mark(text: str) -> str:
    """`text` with one U+FFFD for an incomplete end: the library writes one for each byte, others one for all."""
    whole = text.rstrip("\ufffd")
    return whole + "\ufffd" if whole != text else text


def golden() -> Any:
    """Every tokenizer with every text."""
    return {name: [said(shipped(name), text) for text in TEXTS] for name in names()}


def _words() -> list[str]:
    """What the tokenizers are trained on: kobako's calibration text, in many languages."""
    return PROOF.read_text(encoding="utf-8").splitlines()


def _with_bos(tokenizer: Any) -> Any:
    from tokenizers import processors

    bos = ("<s>", tokenizer.token_to_id("<s>"))
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", pair=None, special_tokens=[bos])
    return tokenizer


def byte_level() -> Any:
    """As GPT-2, Llama 3, Qwen and SmolLM2: bytes as letters, merged."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        _words(),
        trainers.BpeTrainer(
            vocab_size=VOCABULARY, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
        ),
    )
    return made


def byte_fallback(*, prefix: bool) -> Any:
    """As Llama 2 and Mistral (with a space before the text) and Gemma (without): letters, and bytes for the others."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    trained = Tokenizer(models.BPE(unk_token="<unk>"))
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trained.train_from_iterator(_words(), trainers.BpeTrainer(vocab_size=400, show_progress=False, limit_alphabet=150))
    model = json.loads(trained.to_str())["model"]
    pieces = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256)), *model["vocab"]]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    merges = [tuple(merge) for merge in model["merges"]]
    made = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    made.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in SPECIAL])
    spaces = normalizers.Replace(" ", "▁")
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), spaces]) if prefix else spaces
    begin = [decoders.Strip(" ", 1, 0)] if prefix else []
    made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *begin])
    return _with_bos(made)


def unigram() -> Any:
    """As T5 and XLM-R: the likeliest pieces of normalized text."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    made = Tokenizer(models.Unigram())
    made.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace("  ", " ")])
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    made.train_from_iterator(
        _words(),
        trainers.UnigramTrainer(vocab_size=VOCABULARY, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False),
    )
    return _with_bos(made)


def word_piece() -> Any:
    """As BERT: words without case and accents, cut into pieces."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    made = Tokenizer(models.WordPiece(unk_token="<unk>"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece(cleanup=False)
    made.train_from_iterator(
        _words(), trainers.WordPieceTrainer(vocab_size=VOCABULARY, special_tokens=SPECIAL, show_progress=False)
    )
    return _with_bos(made)


def train() -> None:
    """Make the tokenizers and write them as packages hold them."""
    made = {
        "byte-level": byte_level(),
        "byte-fallback": byte_fallback(prefix=False),
        "byte-fallback-prefix": byte_fallback(prefix=True),
        "unigram": unigram(),
        "wordpiece": word_piece(),
    }
    for name, tokenizer in made.items():
        home = HOME / name
        home.mkdir(parents=True, exist_ok=True)
        tokenizer.save(str(home / "tokenizer.json"), pretty=False)
        bos = "" if name == "byte-level" else "<s>"
        config = {"bos_token": bos, "eos_token": "</s>", "clean_up_tokenization_spaces": True}
        (home / "tokenizer_config.json").write_text(json.dumps(config) + "\n")


if __name__ == "__main__":
    if "--train" in sys.argv:
        train()
    text = json.dumps(golden(), indent=None, ensure_ascii=True)
    (HOME / GOLDEN).write_text(text.replace('}, {"text"', '},\n {"text"') + "\n", encoding="utf-8")
