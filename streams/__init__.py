"""What flows: sources, log formats, events and the pipeline."""
