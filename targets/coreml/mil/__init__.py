"""A reader and an interpreter of Core ML's model intermediate language (MIL), for machines without Core ML.

`program` reads a saved ``.mlpackage``; `interpreter` compiles its functions to closures over PyTorch and runs them;
`ops` holds what each operation does, by kind. Nothing here converts or knows kobako's own models.
"""
