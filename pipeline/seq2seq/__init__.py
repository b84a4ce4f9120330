"""Models that read one text and write another: an encoder, and a decoder that looks at what it read.

Loading and quantizing are those of every model, and so are the demands, the gates and the golden files of the proof,
since an answer is text that is written token by token. What is different lies here:

    facts      what an answer begins and ends with, read from the checkpoint once
    runtime    an artifact's two functions as a `Runtime`: a source, and then the answer's tokens
    engine     text in, text out: what ``kobako run`` and an app do
    expect     Reference + Quantized → Expectations: what the models answer to the proof's sources
    proof      Exported + Expectations → Report
"""
