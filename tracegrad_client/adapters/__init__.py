"""One folder or module a program: how a guess gets into it. Nothing here is imported before its program is used."""
