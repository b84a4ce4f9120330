"""Models that read a whole text at once and answer with a vector, labels or a masked word: rooms along the same way.

A family file says that an architecture is an encoder; `kobako.pipeline.heads` what its output is. Loading and
quantizing are those of every model. From there on an encoder walks through this folder:

    texts      the texts of the proof, and pairs that belong together
    expect     Reference + Quantized → Expectations: what artifacts must answer
    standard   the same, read back at build time and from a package
    compare    two answers: cosine, divergence, labels, retrieval
    spans      answers with numbers for every token, as rows of one length; the words that answer a question
    tags       the words of a text that have labels
    gates      the demands
    proof      Exported + Expectations → Report
    engine     text in, vector or labels out: what ``kobako run`` and an app do
    measure    Exported → Measurement
"""
