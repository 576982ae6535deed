"""HTTP itself: what comes in, errors as problems, the OpenAPI document. Starlette lives here and in ``routes``."""
