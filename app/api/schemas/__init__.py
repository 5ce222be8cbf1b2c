"""Response bodies: FastAPI serialises them, and the OpenAPI document describes them."""
