"""Whatever is sent, the API answers in time, without a fault of its own, and as its OpenAPI document says."""
