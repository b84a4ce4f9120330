"""The command line: parse, call, print. Each command is one module, imported only when it is called."""
