"""A page in the browser that shows the shapes of an index: a map of them, their neighbours, what a model makes of one."""
