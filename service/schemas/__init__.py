"""The wire types: what requests and responses look like. Imports pydantic only, so that a client may use it cheaply."""
