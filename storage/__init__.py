"""Where things lie and in which form: addresses, Parquet schema, shards with their manifest, checkpoints."""

from storage.paths import ConflictError, MissingError, ObjectInfo, Storage

__all__ = ["ConflictError", "MissingError", "ObjectInfo", "Storage"]
