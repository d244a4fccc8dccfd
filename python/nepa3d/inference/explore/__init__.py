"""A page in the browser that shows the shapes of an index: a map, neighbours, what a model makes of a shape."""
