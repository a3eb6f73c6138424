"""What goes into and comes out of the API, as pydantic models; the OpenAPI document is theirs."""
