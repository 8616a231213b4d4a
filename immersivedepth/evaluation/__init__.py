"""mode=evaluate without a system, and mode=compare: the pipeline against measured panoramas, by a named protocol."""
