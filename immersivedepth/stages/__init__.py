"""The stages of the pipeline, one file per stage; see protocols.py for the order."""
