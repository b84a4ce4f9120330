"""The second room: a Source becomes a Reference, a model that can be read tensor by tensor.

`load.load` checks that kobako can export the model and writes its configuration and tokenizer in Hugging Face form;
`weights.open_reference` reads the weights, lazily, from where they lie; `model.reference_model` makes the original
model of them, and `eager` the quantized one. GGUF files are understood by `gguf` (configuration and tensors) and
`gguf_tokenizer`. Importing this room loads nothing.
"""
