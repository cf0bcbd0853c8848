"""Archives and compressed streams: tar members with their raw bytes, gzip and zstd with limits."""
