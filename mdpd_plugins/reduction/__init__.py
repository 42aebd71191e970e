"""Small forms of catalogue entries, through each framework's own configuration.

Named by a `BackboneSpec` as `small`. Nothing here knows an architecture: fields are recognised by their names,
several forms are tried from the smallest up, and the first that builds and runs is taken.
"""
