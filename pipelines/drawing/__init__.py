"""Graph of a pipeline or of a run: model, layout, and rendering."""
