"""XLM-RoBERTa (arXiv:1911.02116), E5's and BGE's multilingual models: RoBERTa with another tokenizer."""

from . import Family

FAMILY = Family(model_type="xlm-roberta", rewrite=lambda config: {**config, "model_type": "roberta"})
