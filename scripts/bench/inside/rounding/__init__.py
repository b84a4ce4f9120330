"""What rounding to 4 bits loses on weights that lie on no 4-bit grid, beside torchao's ways; and how long it takes."""
